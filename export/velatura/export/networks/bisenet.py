"""BiSeNet for face parsing (Yu et al. 2018, arXiv:1808.00897) with a ResNet-18 context path.

The state-dict names are those of the widely used face-parsing checkpoint: `cp.resnet`, `cp.arm16`,
`ffm`, `conv_out`. As there, the features at stride 8 stand in for the paper's spatial path.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.resnet_features import ResNetFeatures

_CONTEXT = 128


class ConvBnRelu(nn.Module):
    """Convolution that keeps the size, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, C, 1, 1]."""
    return x.mean(dim=(2, 3), keepdim=True)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


class AttentionRefinement(nn.Module):
    """Channels weighted by what is in the whole picture."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = ConvBnRelu(in_channels, _CONTEXT)
        self.conv_atten = nn.Conv2d(_CONTEXT, _CONTEXT, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(_CONTEXT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        attention = torch.sigmoid(self.bn_atten(self.conv_atten(_average(x))))  # [N, 128, 1, 1]
        return x * attention


class ContextPath(nn.Module):
    """[N, 3, H, W] → features at stride 8 [N, 128, …], and refined context at stride 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNetFeatures(18)
        self.arm16 = AttentionRefinement(256)
        self.arm32 = AttentionRefinement(512)
        self.conv_head32 = ConvBnRelu(_CONTEXT, _CONTEXT)
        self.conv_head16 = ConvBnRelu(_CONTEXT, _CONTEXT)
        self.conv_avg = ConvBnRelu(512, _CONTEXT, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, at8, at16, at32 = self.resnet(x)
        deepest = self.arm32(at32) + self.conv_avg(_average(at32))  # [N, 128, H/32, W/32]
        deeper = self.conv_head32(_enlarged(deepest, at16))  # [N, 128, H/16, W/16]
        context = self.conv_head16(_enlarged(self.arm16(at16) + deeper, at8))  # [N, 128, H/8, W/8]
        return at8, context, deeper


class FeatureFusion(nn.Module):
    """Detail and context side by side, then channels weighted and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convblk = ConvBnRelu(width, width, kernel=1)
        self.conv1 = nn.Conv2d(width, width // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(width // 4, width, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([detail, context], dim=1))
        attention = torch.sigmoid(self.conv2(F.relu(self.conv1(_average(x)))))  # [N, 256, 1, 1]
        fused: Tensor = x + x * attention
        return fused


class Head(nn.Module):
    """Features → logits at their own size."""

    def __init__(self, in_channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBnRelu(in_channels, hidden)
        self.conv_out = nn.Conv2d(hidden, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.conv_out(self.conv(x)))


class BiSeNet(nn.Module):
    """RGB [N, 3, H, W], normalised as for ImageNet, H and W divisible by 32 → [N, C, H, W].

    `conv_out16` and `conv_out32` are auxiliary outputs of the training; they are kept for the
    names' sake and not run.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion(2 * _CONTEXT)
        self.conv_out = Head(2 * _CONTEXT, 256, classes)
        self.conv_out16 = Head(_CONTEXT, 64, classes)
        self.conv_out32 = Head(_CONTEXT, 64, classes)

    def forward(self, x: Tensor) -> Tensor:
        detail, context, _ = self.cp(x)
        logits = self.conv_out(self.ffm(detail, context))  # [N, C, H/8, W/8]
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=True)
