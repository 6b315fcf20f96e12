"""Sizes and views: arithmetic on dynamic sizes, a second free dimension, views across any cut."""

import torch
from case import BATCH, Model, batched, case, positional
from torch import nn

LENGTH = torch.export.Dim("length", min=1, max=256)


class SizeArithmetic(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        batch, length, width = x.shape
        y = self.first(x).reshape(batch * length, width)
        half = (batch * length + 1) // 2
        z = torch.cat([y, y[:half]])
        z = self.second(z) / (batch * 2) + z.shape[0] % 3
        pad = torch.zeros(batch, length * 2 - 1, 2, dtype=x.dtype)
        z = z[: batch * length].view(batch, length, -1)
        scale = float(width) ** -0.5
        return (
            z * scale,
            pad + batch,
            torch.arange(batch * 2 - length % 2),
            z.flatten(1).shape[1] - length * 8 + x.sum(),
        )


@case
def size_arithmetic():
    runs = [
        positional(torch.randn(b, n, 8))
        for b, n in ((4, 6), (1, 1), (2, 7), (64, 3), (1, 256), (3, 5))
    ]
    return Model(SizeArithmetic(), runs, {"x": {0: BATCH, 1: LENGTH}})


class TwoDynamic(nn.Module):
    """Attention by hand: batch and length are both free."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x, mask):
        batch, length, width = x.shape
        q, k, v = (
            t.view(batch, length, self.heads, -1).transpose(1, 2)
            for t in self.qkv(self.norm(x)).split(width, 2)
        )
        scores = q @ k.transpose(2, 3) / (width // self.heads) ** 0.5
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        scores = scores.masked_fill(~(causal & mask[:, None, None, :]), float("-inf"))
        return x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


@case
def two_dynamic():
    def make(batch, length):
        lengths = torch.randint(1, length + 1, (batch, 1))
        return positional(torch.randn(batch, length, 16), torch.arange(length)[None] < lengths)

    runs = [make(b, n) for b, n in ((4, 6), (1, 1), (2, 7), (64, 33), (1, 256))]
    shapes = {0: BATCH, 1: LENGTH}
    return Model(TwoDynamic(), runs, {"x": shapes, "mask": shapes}, chunkable=True)


class Views(nn.Module):
    """Strides that only hold where they were made: expand, as_strided, transpose, diagonal, unfold,
    flip.
    """

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 12), nn.Linear(4, 4)

    def forward(self, x):
        y = self.first(x)
        wide = y.unsqueeze(1).expand(-1, 3, -1)
        turned = y.view(-1, 3, 4).transpose(1, 2)
        windows = y.unfold(1, 4, 2)
        diagonal = torch.diagonal(y.view(-1, 3, 4), dim1=1, dim2=2)
        strided = y.contiguous().as_strided((y.shape[0], 3, 4), (12, 4, 1))
        z = self.second(strided) + turned.permute(0, 2, 1)
        back = turned.transpose(1, 2).view(-1, 12)
        return (
            wide.sum(1) + back,
            z.flip(1),
            windows.mean(2),
            diagonal * 2,
            y.narrow(1, 2, 5),
            z.movedim(0, 1).swapaxes(0, 1),
        )


@case
def views():
    return Model(Views(), batched((12,)), {"x": {0: BATCH}}, chunkable=True)


class Broken(nn.Module):
    """Divisible sizes: the batch is 2 * n, so the graph holds a floor division."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        pairs = x.view(x.shape[0] // 2, 2, 8)
        return self.linear(pairs).sum(1), pairs[:, 0] - pairs[:, 1]


@case
def derived_dim():
    half = torch.export.Dim("half", min=2, max=32)  # at 1, export itself puts a guard in the way
    return Model(Broken(), batched((8,), batches=(4, 8, 64, 6)), {"x": {0: 2 * half}})


@case
def auto_dim():
    """Dim.AUTO: the exporter names and bounds the symbol itself."""
    return Model(
        nn.Sequential(nn.Linear(8, 8), nn.Tanh()),
        batched((8,), batches=(4, 2, 64, 100)),
        ({0: torch.export.Dim.AUTO},),
        chunkable=True,
    )


class SameSize(nn.Module):
    """Two inputs that must agree in a size, and one whose size is one more."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, y, z):
        return self.linear(x) + y + z[1:]


@case
def related_dims():
    rows = torch.export.Dim("rows", min=2, max=64)
    runs = [
        positional(torch.randn(b, 4), torch.randn(b, 4), torch.randn(b + 1, 4)) for b in (4, 2, 64)
    ]
    return Model(SameSize(), runs, {"x": {0: rows}, "y": {0: rows}, "z": {0: rows + 1}})
