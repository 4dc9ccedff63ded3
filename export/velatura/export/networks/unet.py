"""U-Net (Ronneberger et al. 2015, arXiv:1505.04597) under milesial's names: `inc` to `outc`.

Padded convolutions with batch norm, and either bilinear or transposed up-sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class UNetConfig:
    """What rebuilds the network; all of it shows in the weights' names and shapes."""

    classes: int
    width: int = 64  # feature maps at full size; they double at each of four stages
    bilinear: bool = False  # or transposed convolutions
    bias: bool = True  # of the convolutions before batch norm, in files before 2023


class DoubleConv(nn.Module):
    """Two 3×3 convolutions with batch norm and ReLU: [N, in, H, W] → [N, out, H, W]."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, bias: bool) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=bias),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, out_channels, 3, padding=1, bias=bias),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.double_conv(x))


class Down(nn.Module):
    """Half the size, then a double convolution."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(
            nn.MaxPool2d(2), DoubleConv(in_channels, out_channels, out_channels, bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.maxpool_conv(x))


class Up(nn.Module):
    """Double the size, put the skip before it, then a double convolution."""

    def __init__(self, in_channels: int, out_channels: int, config: UNetConfig) -> None:
        super().__init__()
        self.up: nn.Module
        if config.bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2)
        hidden = in_channels // 2 if config.bilinear else out_channels
        self.conv = DoubleConv(in_channels, hidden, out_channels, config.bias)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return cast("Tensor", self.conv(torch.cat([skip, self.up(x)], dim=1)))


class OutConv(nn.Module):
    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.conv(x))


class UNet(nn.Module):
    """RGB [N, 3, H, W] in [0, 1], H and W divisible by 16 → logits [N, C, H, W]."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        w, bias = config.width, config.bias
        shrink = 2 if config.bilinear else 1  # bilinear up-sampling halves no channels
        self.inc = DoubleConv(3, w, w, bias)
        self.down1 = Down(w, 2 * w, bias)
        self.down2 = Down(2 * w, 4 * w, bias)
        self.down3 = Down(4 * w, 8 * w, bias)
        self.down4 = Down(8 * w, 16 * w // shrink, bias)
        self.up1 = Up(16 * w, 8 * w // shrink, config)
        self.up2 = Up(8 * w, 4 * w // shrink, config)
        self.up3 = Up(4 * w, 2 * w // shrink, config)
        self.up4 = Up(2 * w, w, config)
        self.outc = OutConv(w, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        full = self.inc(x)  # [N, w, H, W]
        half = self.down1(full)
        quarter = self.down2(half)
        eighth = self.down3(quarter)
        x = self.up1(self.down4(eighth), eighth)  # [N, 8w, H/8, W/8], or half of it
        x = self.up3(self.up2(x, quarter), half)
        return cast("Tensor", self.outc(self.up4(x, full)))
