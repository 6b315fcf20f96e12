"""Where values lie: strided and shared parameters, constants, non-persistent buffers, empty
tensors.
"""

import torch
from case import BATCH, Model, batched, case
from torch import nn
from torch.nn import functional as F


class Strided(nn.Module):
    """Parameters that are transposed, sliced out of a larger storage, or several windows on one
    storage.
    """

    def __init__(self):
        super().__init__()
        self.turned = nn.Parameter(torch.randn(16, 8).t())
        self.sliced = nn.Parameter(torch.randn(10, 8)[1:9])
        self.columns = nn.Parameter(torch.randn(8, 20)[:, 2:18:2])
        fused = torch.randn(24, 8)
        self.q, self.k, self.v = (nn.Parameter(part) for part in fused.split(8))
        self.conv = nn.Conv1d(8, 8, 1)

    def forward(self, x):
        y = F.linear(F.linear(x, self.turned), self.sliced) @ self.columns
        y = F.linear(y, self.q).tanh() * F.linear(y, self.k).tanh() + F.linear(y, self.v)
        return self.conv(y.unsqueeze(2)).squeeze(2)


@case
def strided_parameters():
    return Model(Strided(), batched((16,)), {"x": {0: BATCH}}, chunkable=True)


class Constants(nn.Module):
    """Values that are neither parameter nor saved buffer, and tensors without elements."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.plain = torch.randn(8)  # a bare attribute becomes a tensor constant
        self.turned = torch.randn(8, 4).t()[1:3]
        self.register_buffer("hidden", torch.linspace(0, 1, 8), persistent=False)
        self.register_buffer("saved", torch.tensor([True, False] * 4))
        self.register_buffer("brief", torch.randn(8).bfloat16())
        self.empty = nn.Parameter(torch.empty(0, 8))
        self.scalar = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        y = self.linear(x) * self.scalar + self.plain * self.hidden
        y = torch.where(self.saved, y, y * self.brief.float())
        y = torch.cat([y, self.empty]) + torch.tensor([1.0, 2.0] * 4)
        return y + self.turned.sum(), self.empty + 1


@case
def constants():
    return Model(Constants(), batched((8,)), {"x": {0: BATCH}})


class Shared(nn.Module):
    """One module under two paths, and one storage seen as two shapes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.again = self.first
        self.last = nn.Linear(8, 8)
        self.last.weight = nn.Parameter(self.first.weight.detach().view(8, 8))
        self.register_buffer("flat", self.first.weight.detach().view(64))

    def forward(self, x):
        x = self.first(x).relu()
        x = self.again(x).relu()
        return self.last(x) + self.flat[:8]


@case
def shared_storage():
    return Model(Shared(), batched((8,)), {"x": {0: BATCH}}, chunkable=True)


class Created(nn.Module):
    """Tensors made inside: dtype and device literals, infinities, ranges, initialisers."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        n, device = x.shape[0], x.device
        mask = torch.full((8, 8), float("-inf"), dtype=torch.float32, device=device).triu(1)
        ramp = torch.arange(8, dtype=torch.float32, device="cpu")
        y = torch.softmax(self.linear(x).unsqueeze(1) + mask, -1).sum(1) + ramp
        y = (
            y
            + torch.linspace(-1, 1, 8)
            + torch.eye(8)[0]
            + torch.ones(n, 1, dtype=torch.float64).float()
        )
        y = (
            y
            + torch.zeros_like(x)
            + torch.full_like(x, 2)
            + x.new_zeros(1, 8)
            + torch.empty(n, 8).fill_(3)
        )
        y = torch.nan_to_num(y.masked_fill(ramp > 6, float("inf")), nan=0.0, posinf=9.0)
        return (
            y,
            torch.arange(n, dtype=torch.int32),
            torch.scalar_tensor(float("inf")),
            torch.tensor(7),
        )


@case
def created():
    return Model(Created(), batched((8,)), {"x": {0: BATCH}})
