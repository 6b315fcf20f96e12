"""Recipes carried out, as the runtime does it: tensors by byte range, and then plain movement."""

from __future__ import annotations

import torch

from echelon_export.text.checkpoint import Checkpoint, Stored
from echelon_export.text.recipes import TORCH_DTYPES

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def load_stored(stored: Stored) -> torch.Tensor:
    with stored.file.open("rb") as file:
        file.seek(stored.begin)
        data = bytearray(file.read(stored.end - stored.begin))
    return torch.frombuffer(data, dtype=TORCH_DTYPES[stored.dtype]).view(stored.shape)


def made_by(recipe: dict, checkpoint: Checkpoint) -> torch.Tensor:
    if "tensor" in recipe:
        return load_stored(checkpoint.tensors[recipe["tensor"]])
    kind, of = recipe["op"], recipe["of"]
    if kind in ("stack", "cat"):
        return getattr(torch, kind)([made_by(r, checkpoint) for r in of], recipe["dim"])
    value = made_by(of, checkpoint)
    if kind == "slice":
        return value.narrow(recipe["dim"], recipe["start"], recipe["length"])
    if kind == "cast":
        return value.to(DTYPES[recipe["dtype"]])
    if kind == "transpose":
        return value.transpose(*recipe["dims"])
    assert kind == "reshape", recipe
    return value.reshape(recipe["shape"])
