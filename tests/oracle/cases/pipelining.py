"""What torch.distributed.pipelining's own tests cover, as models of our own."""

import torch
from case import BATCH, Model, batched, case, positional
from torch import nn


class Example(nn.Module):
    """A parameter used twice, a skip, a second input that enters late, a buffer."""

    def __init__(self, width=32):
        super().__init__()
        self.shared = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.late = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.linear = nn.Linear(width, width)
        self.register_buffer("offset", torch.randn(width))

    def forward(self, x, y):
        x = torch.mm(x, self.shared)
        skip = x
        x = torch.relu(x + y)
        x = torch.mm(x, self.shared) + self.offset
        x = self.linear(x)
        x = torch.relu(x)
        x = torch.mm(x, self.late) + skip
        return {"out": torch.relu(torch.mm(x, self.late)), "sum": (x + y).sum(1)}


@case
def pipe_example():
    return Model(
        Example(), batched((32,), (32,)), {"x": {0: BATCH}, "y": {0: BATCH}}, chunkable=True
    )


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


class ManyBlocks(nn.Module):
    """Named blocks, the points at which users cut; an auxiliary head leaves early."""

    def __init__(self, width=32):
        super().__init__()
        self.block0, self.block1, self.block2, self.block3 = (Block(width) for _ in range(4))
        self.early = nn.Linear(width, 3)

    def forward(self, x):
        x = self.block0(x)
        early = self.early(x)
        x = self.block2(self.block1(x))
        return self.block3(x) - x, early


@case
def pipe_blocks():
    return Model(ManyBlocks(), batched((32,)), {"x": {0: BATCH}}, chunkable=True)


class Unflattened(nn.Module):
    """Nested modules with parameters and buffers at several depths, an unused one, a constant and a
    keyword.
    """

    class Inner(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(width))
            self.register_buffer("shift", torch.ones(width))
            self.sub = nn.ModuleDict({"linear": nn.Linear(width, width), "spare": nn.Linear(2, 2)})

        def forward(self, x, constant):
            return self.sub["linear"](x) * self.weight + self.shift * constant

    def __init__(self, width=16):
        super().__init__()
        self.first, self.second = self.Inner(width), self.Inner(width)
        self.root = nn.Parameter(torch.randn(width))

    def forward(self, x, constant=None):
        x = self.first(x, constant) + self.root
        return self.second(x.relu(), constant) + self.root


@case
def pipe_unflatten():
    runs = [((torch.randn(b, 16),), {"constant": torch.randn(1)}) for b in (4, 1, 2, 64)]
    return Model(Unflattened(), runs, {"x": {0: BATCH}, "constant": None})


class Layered(nn.Module):
    """Layers in a list, each with attention and a feed-forward part, as decoders are written."""

    class Layer(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
            self.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
            )

        def forward(self, x):
            y = self.norm1(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            return x + self.mlp(self.norm2(x))

    def __init__(self, width=32, layers=8):
        super().__init__()
        self.embed = nn.Embedding(40, width)
        self.layers = nn.ModuleList(self.Layer(width) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 40, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


@case
def pipe_transformer():
    runs = [positional(torch.randint(0, 40, (b, 6))) for b in (4, 1, 2, 64)]
    return Model(Layered(), runs, {"ids": {0: BATCH}}, chunkable=True)


class Microbatch(nn.Module):
    """Rows stay rows: a batch split over positional and keyword inputs is the same."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x, *, y, weights):
        z = self.first(x) + y.unsqueeze(1)
        return self.second(z) * weights[:, None, None], {"rows": z.amax((1, 2))}


@case
def pipe_microbatch():
    runs = [
        ((torch.randn(b, 3, 16),), {"y": torch.randn(b, 16), "weights": torch.rand(b)})
        for b in (4, 1, 2, 7, 64)
    ]
    return Model(
        Microbatch(),
        runs,
        {"x": {0: BATCH}, "y": {0: BATCH}, "weights": {0: BATCH}},
        chunkable=True,
    )
