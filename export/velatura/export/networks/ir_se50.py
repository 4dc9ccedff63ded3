"""Backbones of the published W+ encoders: IR-SE-50 of ArcFace, and ResNet-34.

IR-SE-50 is the "improved residual" network of Deng et al. 2019 (arXiv:1801.07698) with squeeze and
excitation (Hu et al. 2018, arXiv:1709.01507): batch norm first, the stride in the second 3×3
convolution, PReLU between them. The names are those of published checkpoints: `input_layer.{0,1,2}`
and `body.{i}.{res_layer,shortcut_layer}`, or for ResNet-34 `conv1`, `bn1`, `relu` and
`body.{i}.{conv1,bn1,conv2,bn2,downsample}`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


@dataclass(frozen=True)
class BackboneConfig:
    """Four stages; each begins with a unit that halves the size (ResNet: but for the first)."""

    kind: Literal["ir", "resnet"] = "ir"
    widths: tuple[int, ...] = (64, 128, 256, 512)
    units: tuple[int, ...] = (3, 4, 14, 3)
    image_channels: int = 3
    # Channels for each one that squeeze and excitation keeps; 0: none (IR-50).
    squeeze: int = 16

    @property
    def taps(self) -> tuple[int, int, int]:
        """Indices of the units whose outputs have a quarter, an eighth and a 16th of the size."""
        ends = [total - 1 for total in accumulate(self.units)]
        return ends[1], ends[2], ends[3]


class SqueezeExcite(nn.Module):
    """Channels weighted by what their means say: [N, C, H, W] → the same."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)  # [N, C, 1, 1]
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


class ImprovedResidual(nn.Module):
    """[N, in, H, W] → [N, out, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if squeeze:
            layers.append(SqueezeExcite(outputs, squeeze))
        self.res_layer = nn.Sequential(*layers)
        self.shortcut_layer: nn.Module
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        elif stride != 1:
            self.shortcut_layer = nn.MaxPool2d(1, stride)  # every other sample
        else:
            self.shortcut_layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


def stem(config: BackboneConfig) -> OrderedDict[str, nn.Module]:
    """The first layers by name, in order: [N, C, H, W] → [N, widths[0], H, W], ResNet: halved."""
    width = config.widths[0]
    if config.kind == "ir":
        convolution = nn.Conv2d(config.image_channels, width, 3, padding=1, bias=False)
        layers = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.PReLU(width))
        return OrderedDict(input_layer=layers)
    return OrderedDict(
        conv1=nn.Conv2d(config.image_channels, width, 7, 2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu=nn.PReLU(width),
    )


def body(config: BackboneConfig) -> nn.Sequential:
    """All units of the four stages: → [N, widths[3], H / 16, W / 16] of the image's size."""
    units: list[nn.Module] = []
    inputs = config.widths[0]
    for stage, (outputs, count) in enumerate(zip(config.widths, config.units, strict=True)):
        for i in range(count):
            stride = 2 if i == 0 and (stage > 0 or config.kind == "ir") else 1
            if config.kind == "ir":
                units.append(ImprovedResidual(inputs, outputs, stride, config.squeeze))
            else:
                units.append(_basic_block(inputs, outputs, stride))
            inputs = outputs
    return nn.Sequential(*units)


def _basic_block(inputs: int, outputs: int, stride: int) -> BasicBlock:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )
    return BasicBlock(inputs, outputs, stride, shortcut)
