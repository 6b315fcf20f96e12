"""Models of 1 GB and more, for measures of loading and memory."""

import torch
from case import Model, batched, case
from torch import nn


@case(large=True)
def big():
    layers = [nn.Linear(4096, 4096, bias=False) for _ in range(16)]
    batch = torch.export.Dim("batch", min=1, max=4096)
    return Model(
        nn.Sequential(*layers), batched((4096,), batches=(4, 1)), ({0: batch},), chunkable=True
    )
