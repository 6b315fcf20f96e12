"""Modules that the tests export, well and badly behaved."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


net = Net()
number = 3


def make():
    return Net()


def make_nothing():
    return 3


class NeedsWidth(nn.Module):
    def __init__(self, width):
        super().__init__()


class TwoInputs(nn.Module):
    def forward(self, x, y, *, scale):
        return x * scale + y, (x > y).sum(1)


class Dictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1000, 8)

    def forward(self, batch, times=1, pair=None):
        y = self.embed(batch["ids"]).mean(1) * times + batch["dense"]
        return {"y": y, "parts": (y.sum(1), y.amax(1) if pair is None else pair[0] + pair[1])}


class Lengths(nn.Module):
    def forward(self, x, mask):
        return (x * mask.unsqueeze(2)).sum(1)


class WithTable(nn.Module):
    def forward(self, x, table):
        return x @ table


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(8)

    def forward(self, x):
        self.calls.add_(1)
        return self.dropout(self.norm(x)) * self.calls


class EveryType(nn.Module):
    def forward(self, a, b, c, d, e, f, g, h, i, j):
        return [t.sum(1) for t in (a, b, c, d, e, f, g, h, i, j)]


class Attention(nn.Module):
    """Its eager fast path is a fused operator that an export does not hold."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        return self.layer(x)


class FixesBatch(nn.Module):
    def forward(self, x):
        return x.view(4, -1)


class FixesLength(nn.Module):
    def forward(self, x):
        return x + torch.zeros(1, 8)


class OtherPath(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] <= 20 else x * 3


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Random(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Counts(nn.Module):
    """State in a Python number, which an export cannot hold."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class OnMeta(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8, device="meta")

    def forward(self, x):
        return self.linear(x)


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8).to_sparse())

    def forward(self, x):
        return torch.sparse.mm(self.weight, x.t())


class Fails(nn.Module):
    def forward(self, x):
        raise ValueError("first line\nsecond line")


class TrainsOnTwo(nn.Module):
    """Works for a batch of two or more only."""

    def forward(self, x):
        if x.shape[0] == 1:
            raise ValueError("one row is too few")
        return x - x.mean(0)
