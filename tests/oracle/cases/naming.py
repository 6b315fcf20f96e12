"""What goes in and out: dictionaries, keywords, tuples, constants, sizes, passed-through values."""

import collections
import dataclasses
from typing import NamedTuple

import torch
from case import BATCH, Model, case, positional
from torch import nn
from torch.utils import _pytree as pytree
from transformers.modeling_outputs import BaseModelOutputWithPooling

BATCHES = (4, 1, 2, 64)


class Dictionaries(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.linear = nn.Embedding(20, 8), nn.Linear(8, 8)

    def forward(self, batch, *, scale, bias=None):
        x = self.embed(batch["ids"]).mean(1) + batch["dense"]
        y = self.linear(x) * scale
        return {
            "logits": y if bias is None else y + bias,
            "hidden": (x, [y.relu(), y.sum(1)]),
            "top": {"best": y.argmax(1)},
        }


@case
def dictionaries():
    def make(batch):
        fields = {"ids": torch.randint(0, 20, (batch, 5)), "dense": torch.randn(batch, 8)}
        return (fields,), {"scale": torch.rand(batch, 1), "bias": torch.randn(batch, 8)}

    rows = {0: BATCH}
    return Model(
        Dictionaries(),
        [make(b) for b in BATCHES],
        {"batch": {"ids": rows, "dense": rows}, "scale": rows, "bias": rows},
        chunkable=True,
    )


class ModelOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        hidden = self.first(x)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=self.second(hidden.tanh()),
            hidden_states=(x, hidden),
        )


@case
def model_output():
    return Model(
        ModelOutput(),
        [positional(torch.randn(b, 8)) for b in BATCHES],
        {"x": {0: BATCH}},
        chunkable=True,
    )


@dataclasses.dataclass
class Answer:
    score: torch.Tensor
    label: torch.Tensor


torch.export.register_dataclass(Answer, serialized_type_name="oracle.Answer")


class DataClass(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        score, label = self.linear(x).max(1)
        return Answer(score, label)


@case
def dataclass_output():
    return Model(
        DataClass(),
        [positional(torch.randn(b, 8)) for b in BATCHES],
        {"x": {0: BATCH}},
        chunkable=True,
    )


class ManyOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 12), nn.Linear(12, 12)

    def forward(self, x, keep):
        y = self.first(x)
        values, indices = torch.topk(y, 3, dim=1)
        z = torch.where(keep.unsqueeze(1), self.second(y), y)
        return (
            y,
            indices,
            [values, z > 0],
            (z.argmax(1).to(torch.int32), (z * 10).to(torch.uint8)),
            keep,
        )


@case
def many_outputs():
    runs = [positional(torch.randn(b, 16), torch.rand(b) > 0.5) for b in BATCHES]
    return Model(ManyOutputs(), runs, {"x": {0: BATCH}, "keep": {0: BATCH}}, chunkable=True)


class Lists(nn.Module):
    """Operators with several results, some of them unused."""

    def __init__(self):
        super().__init__()
        self.linear, self.last = nn.Linear(12, 12), nn.Linear(6, 6)

    def forward(self, x):
        a, b, c = torch.split(self.linear(x), [2, 4, 6], dim=1)
        rows = x.view(-1, 3, 4).unbind(1)
        top, where = (rows[0] + rows[2]).max(1)
        halves = self.last(c).chunk(2, 1)
        _, order = torch.sort(b, dim=1, descending=True)
        pieces = torch.tensor_split(x, 3, dim=1)
        mean = torch.var_mean(x, dim=1)[1]
        return (
            [a, halves[1], top],
            where,
            order,
            torch.stack([halves[0], a.repeat(1, 2)[:, :3]]).sum(0),
            pieces[1],
            mean,
        )


@case
def lists():
    return Model(
        Lists(),
        [positional(torch.randn(b, 12)) for b in BATCHES],
        {"x": {0: BATCH}},
        chunkable=True,
    )


class ConstantArguments(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x, times, flag, mode, rate, extra, y=None):
        x = self.linear(x)
        for _ in range(times):
            x = x * rate if flag else x
        if mode == "relu" and extra is None:
            x = x.relu()
        return x + y, times, None, mode


@case
def constant_arguments():
    runs = [
        ((torch.randn(b, 8), 3, True, "relu", 0.5, None), {"y": torch.randn(b, 8)}) for b in BATCHES
    ]
    shapes = {
        "x": {0: BATCH},
        "times": None,
        "flag": None,
        "mode": None,
        "rate": None,
        "extra": None,
        "y": {0: BATCH},
    }
    return Model(ConstantArguments(), runs, shapes)


class PassThrough(nn.Module):
    """Outputs that no operator makes: an input, a weight, a buffer, one value twice."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("table", torch.arange(6.0))

    def forward(self, x, unused):
        y = self.linear(x)
        return x, y, y, self.linear.bias, self.table, unused


@case
def pass_through():
    runs = [positional(torch.randn(b, 8), torch.randn(b, 2)) for b in BATCHES]
    return Model(PassThrough(), runs, {"x": {0: BATCH}, "unused": {0: BATCH}})


class SizeOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return {
            "y": self.linear(x),
            "rows": x.shape[0],
            "twice": x.shape[0] * 2 + 1,
            "scalar": x.sum(),
        }


@case
def size_outputs():
    return Model(SizeOutputs(), [positional(torch.randn(b, 8)) for b in BATCHES], {"x": {0: BATCH}})


class Integers(nn.Module):
    """Every integer dtype that a request may carry."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.linear = nn.Linear(8, 8)

    def forward(self, a, b, c, d, keep):
        x = self.linear(self.embed(a.long() % 16) + self.embed(b.int() % 16)) * keep
        total = a.to(torch.int64) + b + c + d
        return x, total, (c // 3).to(torch.int16), d & 7, ~keep


@case
def integers():
    def make(b):
        return positional(
            torch.randint(0, 200, (b, 1), dtype=torch.uint8),
            torch.randint(0, 9, (b, 1), dtype=torch.int8),
            torch.randint(-99, 99, (b, 1), dtype=torch.int16),
            torch.randint(-99, 99, (b, 1), dtype=torch.int32),
            torch.rand(b, 1, 1) > 0.5,
        )

    rows = {0: BATCH}
    return Model(
        Integers(),
        [make(b) for b in BATCHES],
        {n: rows for n in ("a", "b", "c", "d", "keep")},
        chunkable=True,
    )


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


pytree._register_namedtuple(Pair, serialized_type_name="oracle.Pair")


class OtherContainers(nn.Module):
    """A named tuple and an ordered dictionary, outside and inside one another."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, pair, more):
        y = self.linear(pair.left) + more["bias"]
        inner = collections.OrderedDict(b=y * 2, a=Pair(y.sum(1), y.amax(1)))
        return Pair(y - pair.right, inner)


@case
def other_containers():
    def make(b):
        more = collections.OrderedDict(bias=torch.randn(b, 8))
        return positional(Pair(torch.randn(b, 8), torch.randn(b, 8)), more)

    rows = {0: BATCH}
    shapes = {"pair": Pair(rows, rows), "more": collections.OrderedDict(bias=rows)}
    return Model(OtherContainers(), [make(b) for b in BATCHES], shapes, chunkable=True)
