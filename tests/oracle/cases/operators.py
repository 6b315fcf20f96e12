"""Operators with awkward arguments: lists of tensors, optional tensors, subgraphs, strings."""

import torch
from case import BATCH, Model, batched, case, positional
from torch import nn
from torch.nn import functional as F


class SetGrad(nn.Module):
    """no_grad inside forward leaves a subgraph when the export itself runs with gradients on."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.register_buffer("table", torch.randn(8))

    def forward(self, x):
        y = self.first(x)
        with torch.no_grad():
            scale = (self.second(y) * self.table).tanh()
            total = scale.sum(1, keepdim=True) + x.shape[0]
        with torch.no_grad():
            bias = total.cos()
        return self.third(y * scale) + total + bias


@case
def set_grad():
    model = SetGrad()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return Model(model, batched((8,)), {"x": {0: BATCH}}, grad_mode=True)


class Algebra(nn.Module):
    def __init__(self):
        super().__init__()
        self.core = nn.Parameter(torch.randn(4, 8, 3))
        self.bilinear = nn.Bilinear(4, 8, 3)

    def forward(self, x, y):
        z = torch.einsum("bi,iok,bo->bk", x, self.core, y)
        rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
        a, b = torch.broadcast_tensors(z.unsqueeze(2), rows + columns)
        c = torch.baddbmm(a, z.unsqueeze(2), x.unsqueeze(1), alpha=0.5)
        d = torch.addmm(z, x, self.core[:, 0], beta=2)
        return (
            self.bilinear(x, y) + d,
            c * b,
            torch.cdist(x, self.core[:, 0].t(), compute_mode="donot_use_mm_for_euclid_dist"),
            torch.stack([z, d], -1).logsumexp(-1),
        )


@case
def algebra():
    return Model(Algebra(), batched((4,), (8,)), {"x": {0: BATCH}, "y": {0: BATCH}}, chunkable=True)


class Indexing(nn.Module):
    """Tensor?[] arguments, gathers, scatters and masks."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(10, 6))

    def forward(self, x, ids):
        rows = self.table[ids]
        y = rows[:, :, torch.tensor([0, 2, 4])]
        z = x[:, None, ::2] + y
        z = z.scatter_add(2, ids.unsqueeze(2) % 3, torch.ones_like(z[:, :, :1]))
        picked = z.gather(2, (ids % 3).unsqueeze(2)).squeeze(2)
        counts = F.one_hot(ids, 10).sum(1)
        padded = F.pad(z, (1, 2), value=-1.0)
        best = torch.bucketize(picked, torch.tensor([-1.0, 0.0, 1.0]))
        return (
            z.index_select(2, torch.tensor([2, 0])),
            counts,
            padded,
            best,
            picked.cumsum(1),
            rows[:, -1, None],
        )


@case
def indexing():
    runs = [positional(torch.randn(b, 6), torch.randint(0, 10, (b, 4))) for b in (4, 1, 2, 64)]
    return Model(Indexing(), runs, {"x": {0: BATCH}, "ids": {0: BATCH}}, chunkable=True)


class Assorted(nn.Module):
    """Arguments of every kind: strings, doubles, rounding modes, scalars in a tensor's place,
    optional sizes.
    """

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.prelu = nn.PReLU()

    def forward(self, x):
        y = F.gelu(self.linear(x), approximate="tanh")
        y = torch.div(y, 0.3, rounding_mode="floor") + torch.clamp(y, max=0.5) + 2**y + (3 - y)
        image = F.interpolate(
            y.view(-1, 1, 2, 4), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        image = F.adaptive_avg_pool2d(image, (1, 3)).flatten(1)
        y = F.hardtanh(self.prelu(y), -0.5, 4.0) + F.softplus(y, beta=2.0) + F.leaky_relu(y, 0.1)
        y = (
            F.layer_norm(y, (8,))
            + F.normalize(y, dim=1)
            + y.norm(dim=1, keepdim=True)
            + torch.std(y, 1, keepdim=True)
        )
        y = y + F.scaled_dot_product_attention(
            y.view(-1, 1, 2, 4), y.view(-1, 1, 2, 4), y.view(-1, 1, 2, 4), scale=0.25
        ).reshape(-1, 8)
        return (
            y + F.rms_norm(y, (8,)),
            image,
            torch.isfinite(y).all(1),
            y.amax((0, 1)),
            y.round(decimals=1),
        )


@case
def assorted():
    return Model(Assorted(), batched((8,)), {"x": {0: BATCH}}, tolerance=1e-4)


class DataScalars(nn.Module):
    """Numbers read from tensors at run time, and a size that only the data decide."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        y = self.linear(x)
        y = y * x.abs().max().item() + (x.sum().item() > 0)
        chosen = y.flatten()[x.flatten() > 0]
        return y, chosen * 2, torch.nonzero(x[0] > 10)


@case
def data_scalars():
    return Model(DataScalars(), batched((8,)), {"x": {0: BATCH}})
