"""Plain layers: the article's Net, skips, tied weights, dtypes."""

import net as article
import torch
from case import BATCH, Model, batched, case, positional
from torch import nn
from torch.nn import functional as F


@case
def net():
    return Model(
        article.Net(),
        batched((128,), batches=(4, 1, 2, 3, 7, 64)),
        {"x": {0: BATCH}},
        chunkable=True,
    )


@case
def static_net():
    return Model(article.Net(), batched((128,), batches=(4,)))


class Skip(nn.Module):
    """The first layer's result is needed two stages later."""

    def __init__(self, width=32):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(6))

    def forward(self, x):
        first = self.layers[0](x)
        y = F.relu(self.layers[1](torch.relu(first)))
        y = torch.tanh(self.layers[2](y))
        y = F.gelu(self.layers[3](y))
        y = self.layers[4](y) + first
        return self.layers[5](y) * x


@case
def mlp_skip2():
    return Model(Skip(), batched((32,)), {"x": {0: BATCH}}, chunkable=True)


class Tied(nn.Module):
    """Embedding and head share one weight; a block is used twice."""

    def __init__(self, words=50, width=32):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.other = nn.Linear(width, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.block(x)
        x = x + self.other(x)
        x = x + self.block(x)
        return self.head(x)


@case
def tied():
    length = torch.export.Dim("length", min=1, max=128)
    runs = [
        positional(torch.randint(0, 50, shape))
        for shape in ((4, 9), (1, 1), (2, 128), (64, 3), (1, 17))
    ]
    return Model(Tied(), runs, {"ids": {0: BATCH, 1: length}}, chunkable=True)


class Narrow(nn.Module):
    """The same layers in another dtype, with casts on the way."""

    def __init__(self, dtype):
        super().__init__()
        self.first, self.second = nn.Linear(32, 48, dtype=dtype), nn.Linear(48, 16, dtype=dtype)

    def forward(self, x):
        y = torch.relu(self.first(x.to(self.first.weight.dtype)))
        return self.second(y), y.float().softmax(-1)


@case
def net_bf16():
    return Model(
        Narrow(torch.bfloat16), batched((32,)), {"x": {0: BATCH}}, chunkable=True, tolerance=2e-2
    )


@case
def net_f16():
    runs = [positional(args[0].half()) for args, _ in batched((32,))]
    return Model(Narrow(torch.float16), runs, {"x": {0: BATCH}}, chunkable=True, tolerance=2e-3)


@case
def net_f64():
    return Model(
        Narrow(torch.float64), batched((32,)), {"x": {0: BATCH}}, chunkable=True, tolerance=1e-5
    )


@case
def bench_mlp():
    layers = [layer for _ in range(8) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    batch = torch.export.Dim("batch", min=1, max=4096)
    return Model(
        nn.Sequential(*layers), batched((1024,), batches=(4, 1, 256)), ({0: batch},), chunkable=True
    )
