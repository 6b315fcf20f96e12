"""Convolutions: ResNet-18, a U-Net with long skips, channels_last."""

import torch
from case import BATCH, Model, batched, case
from torch import nn
from torchvision.models import resnet18 as torchvision_resnet18


def randomise_statistics(module):
    """Fresh batch norms do nothing (mean 0, variance 1); these do something."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
    return module


@case
def resnet18():
    model = randomise_statistics(torchvision_resnet18(weights=None))
    return Model(
        model, batched((3, 64, 64), batches=(4, 1, 2, 16)), {"x": {0: BATCH}}, chunkable=True
    )


class Double(nn.Sequential):
    def __init__(self, inner, outer):
        super().__init__(
            nn.Conv2d(inner, outer, 3, padding=1),
            nn.BatchNorm2d(outer),
            nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, padding=1),
            nn.BatchNorm2d(outer),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Every level's features skip over all the levels below it."""

    def __init__(self, widths=(8, 16, 32, 64)):
        super().__init__()
        self.down = nn.ModuleList(Double(a, b) for a, b in zip((3, *widths), widths))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in zip(widths, widths[1:]))
        self.merge = nn.ModuleList(Double(2 * a, a) for a in widths[:-1])
        self.out = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x):
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        x = skips.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge)):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return self.out(x)


@case
def unet():
    return Model(
        randomise_statistics(UNet()),
        batched((3, 32, 32), batches=(4, 1, 2, 64)),
        {"x": {0: BATCH}},
        chunkable=True,
    )


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = x.to(memory_format=torch.channels_last)
        x = torch.nn.functional.silu(self.first(x))
        x = x + self.norm(self.second(x)).contiguous(memory_format=torch.channels_last)
        return self.head(x.mean((2, 3))), x


@case
def channels_last():
    model = ChannelsLast().to(memory_format=torch.channels_last)
    return Model(
        model, batched((3, 16, 16), batches=(4, 1, 2, 64)), {"x": {0: BATCH}}, chunkable=True
    )
