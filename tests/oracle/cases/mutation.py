"""Writes: mutable buffers, in-place operators on either side of any cut, writes through views and
to inputs.
"""

import torch
from case import BATCH, Model, batched, case, positional
from torch import nn
from torch.nn import functional as F


class Running(nn.Module):
    """Counts its calls and keeps a running mean; both are part of the answer."""

    def __init__(self, width=16):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, x):
        y = torch.relu(self.first(x))
        self.calls.add_(1)
        self.mean.mul_(0.9).add_(y.mean(0), alpha=0.1)
        y = self.second(y - self.mean)
        return {"y": y * self.calls, "calls": self.calls.clone(), "mean": self.mean + 0}


def running_runs():
    return batched((16,), batches=(4, 1, 2, 64, 3))


@case
def mutable_buffer():
    return Model(Running(), running_runs(), {"x": {0: BATCH}}, stateful=True)


@case
def mutable_buffer_functional():
    return Model(Running(), running_runs(), {"x": {0: BATCH}}, stateful=True, functional=True)


class Assigned(nn.Module):
    """Replaces its buffers instead of writing into them; the result is the buffer itself."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("state", torch.zeros(8))
        self.register_buffer("steps", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.state = torch.tanh(self.state + self.linear(x).sum(0))
        self.steps = self.steps + 1
        return x * self.state, self.state, self.steps


@case
def assigned_buffer():
    return Model(Assigned(), batched((8,), batches=(4, 1, 2)), {"x": {0: BATCH}}, stateful=True)


@case
def batchnorm_training():
    """Batch norm left in training mode: its operator itself writes running statistics."""
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    return Model(
        model,
        batched((8,), batches=(4, 2, 64)),
        ({0: torch.export.Dim("batch", min=2, max=64)},),
        stateful=True,
        training=True,
    )


@case
def batchnorm_training_functional():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    return Model(
        model,
        batched((8,), batches=(4, 2, 64)),
        ({0: torch.export.Dim("batch", min=2, max=64)},),
        stateful=True,
        training=True,
        functional=True,
    )


class Cache(nn.Module):
    """A ring buffer written by index: what a key-value cache does."""

    def __init__(self, width=8, slots=4):
        super().__init__()
        self.linear, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.register_buffer("slots", torch.zeros(slots, width))
        self.register_buffer("next", torch.zeros(1, dtype=torch.int64))

    def forward(self, x):
        self.slots[self.next] = self.linear(x)
        self.next.add_(1).remainder_(4)
        return self.out(self.slots.sum(0, keepdim=True)) + x


@case
def cache_buffer():
    return Model(Cache(), [positional(torch.randn(1, 8)) for _ in range(6)], stateful=True)


class InPlace(nn.Module):
    """Some in-place operator comes first after any cut, and older aliases are read after it."""

    def __init__(self, width=16):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(5))

    def forward(self, x):
        a = self.layers[0](x)
        a.relu_()
        b = self.layers[1](a)
        b.add_(a).mul_(0.5)
        b.clamp_(min=-1.0)
        c = self.layers[2](b)
        F.relu(c, inplace=True)
        c.sub_(b, alpha=2)
        b.sigmoid_()
        d = self.layers[3](c)
        d.masked_fill_(d < 0, 0.25)
        d += b
        d.div_(2.0)
        e = self.layers[4](d)
        e.copy_(e * a)
        e.tanh_()
        return e


@case
def inplace():
    return Model(InPlace(), batched((16,)), {"x": {0: BATCH}}, chunkable=True)


class ViewWrites(nn.Module):
    """Writes through views change what older names see, also when a cut lies between view and
    write.
    """

    def __init__(self, width=16):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.third = nn.Linear(width, width)

    def forward(self, x):
        y = self.first(x)
        left, row = y[:, :8], y.t()
        left.mul_(2)
        z = self.second(y)
        row.add_(1)
        z = z + y
        z[:, 3] = 7.0
        z[:, ::4].zero_()
        flat = z.view(-1)
        flat += 0.5
        w = self.third(z)
        parts = w.chunk(2, 1)
        parts[0].exp_()
        w.index_fill_(1, torch.tensor([2, 5]), -1.0)
        return w, y, parts[1].contiguous(), left


@case
def view_writes():
    return Model(ViewWrites(), batched((16,)), {"x": {0: BATCH}}, chunkable=True)


class InputWrite(nn.Module):
    """Writes into its own input; the caller's array must not care, later nodes must."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, y):
        y.mul_(2)
        z = self.first(x) + y
        x.add_(1)
        return self.second(z) * x


@case
def input_write():
    return Model(
        InputWrite(), batched((8,), (8,)), {"x": {0: BATCH}, "y": {0: BATCH}}, chunkable=True
    )


@case
def input_write_functional():
    return Model(
        InputWrite(),
        batched((8,), (8,)),
        {"x": {0: BATCH}, "y": {0: BATCH}},
        chunkable=True,
        functional=True,
    )


class DropoutRelu(nn.Module):
    """In eval mode dropout returns its own input, so the write after it also changes what came
    before.
    """

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        y = self.first(x)
        z = self.drop(y)
        z.relu_()
        return self.second(F.dropout(z, 0.5, self.training)) + y


@case
def dropout_relu():
    return Model(DropoutRelu(), batched((16,)), {"x": {0: BATCH}}, chunkable=True)
