"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) as VainF's DeepLab checkpoints need it.

Two things differ from everybody else's and change the numbers: the first convolution has no
padding, and each block pads its input *before* the expansion, so that batch norm and ReLU6 act on
the border as well. Names: `low_level_features.{0…3}`, `high_level_features.{4…17}`.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

# Expansion, feature maps, blocks, stride of the first of them.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_LOW_LEVEL = 4  # layers up to and with the ones at stride 4
_STEM = 32
OUT_CHANNELS = 320
LOW_LEVEL_CHANNELS = 24


def _conv_bn_relu6(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    conv = nn.Conv2d(
        in_channels, out_channels, kernel, stride, 0, dilation, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Pad, expand (but with factor one), convolve each map, project; added to x where it fits."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, dilation: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand = [_conv_bn_relu6(in_channels, hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv_bn_relu6(hidden, hidden, 3, stride, dilation, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.added = stride == 1 and in_channels == out_channels
        self.padding = dilation

    def forward(self, x: Tensor) -> Tensor:
        out = cast("Tensor", self.conv(F.pad(x, [self.padding] * 4)))
        return x + out if self.added else out


class PaddedMobileNet(nn.Module):
    """[N, 3, H, W] → features [N, 24, ~H/4, ~W/4] and [N, 320, ~H/s, ~W/s] for output stride s."""

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, _STEM, 3, stride=2)]
        width, reached, dilation = _STEM, 2, 1
        for expansion, out_channels, count, first_stride in _STAGES:
            # Once the stride is reached, later stages dilate; the first block of each lags behind.
            lagging, stride = dilation, 1
            if reached == output_stride:
                dilation *= first_stride
            else:
                stride = first_stride
                reached *= first_stride
            for index in range(count):
                layers.append(
                    InvertedResidual(
                        width,
                        out_channels,
                        stride if index == 0 else 1,
                        lagging if index == 0 else dilation,
                        expansion,
                    )
                )
                width = out_channels
        self.low_level_features = _numbered(layers, 0, _LOW_LEVEL)
        self.high_level_features = _numbered(layers, _LOW_LEVEL, len(layers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low_level_features(x)
        return low, self.high_level_features(low)


def _numbered(layers: list[nn.Module], start: int, end: int) -> nn.Sequential:
    """Some of the layers, which keep their numbers in the state dict."""
    part = nn.Sequential()
    for index in range(start, end):
        part.add_module(str(index), layers[index])
    return part
