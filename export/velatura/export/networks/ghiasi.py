"""Arbitrary style transfer (Ghiasi et al. 2017, arXiv:1705.06830) in its mobile form.

`StylePredictor` turns a picture into a style code; `StyleTransformer` repaints another picture in
that style. Both take RGB in [0, 1], any batch; the state-dict names are this module's own.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.style_layers import (
    MirrorConv2d,
    crop_to,
    modulated_instance_norm,
    upsample_nearest,
)

STYLE_CODE_DIM = 100

# MobileNetV2 (Sandler et al. 2018, table 2): expansion, channels, blocks, first stride.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class _SameConv2d(nn.Conv2d):
    """3×3 convolution padded as TensorFlow does for even sizes: with stride 2, behind only."""

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            return F.conv2d(
                F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, groups=self.groups
            )
        return F.conv2d(x, self.weight, self.bias, padding=1, groups=self.groups)


class _InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, hidden, 1) if expansion > 1 else None
        self.depthwise = _SameConv2d(hidden, hidden, 3, stride=stride, groups=hidden)
        self.project = nn.Conv2d(hidden, out_channels, 1)
        self.skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu6(self.expand(x)) if self.expand is not None else x
        out = cast("Tensor", self.project(F.relu6(self.depthwise(hidden))))
        return x + out if self.skip else out


class StylePredictor(nn.Module):
    """Style picture [N, 3, H, W] in [0, 1] → style code [N, 100].

    MobileNetV2 with batch norm folded into the convolutions. Trained at 256 × 256; other sizes of
    at least 32 work, and the code then describes texture at that other scale.
    """

    def __init__(self, code_dim: int = STYLE_CODE_DIM, last_channels: int = 1280) -> None:
        super().__init__()
        self.stem = _SameConv2d(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, out_channels, count, first_stride in _STAGES:
            for i in range(count):
                stride = first_stride if i == 0 else 1
                blocks.append(_InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Conv2d(channels, last_channels, 1)
        # Not `code`: the exporter's graph modules have an attribute of that name.
        self.to_code = nn.Linear(last_channels, code_dim)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu6(self.stem(image))  # [N, 32, H/2, W/2]
        for block in self.blocks:
            x = block(x)
        x = F.relu6(self.last(x))  # [N, 1280, H/32, W/32]
        return cast("Tensor", self.to_code(x.mean(dim=(2, 3))))  # [N, 100]


class _StyledConv(nn.Module):
    """Mirrored convolution, then instance norm whose scale and shift come from the style code."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, code_dim: int, eps: float
    ) -> None:
        super().__init__()
        self.conv = MirrorConv2d(in_channels, out_channels, kernel, bias=False)
        self.scale = nn.Linear(code_dim, out_channels)
        self.shift = nn.Linear(code_dim, out_channels)
        self.eps = eps

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return modulated_instance_norm(self.conv(x), self.scale(code), self.shift(code), self.eps)


class _StyledResidual(nn.Module):
    def __init__(self, channels: int, code_dim: int, eps: float) -> None:
        super().__init__()
        self.conv1 = _StyledConv(channels, channels, 3, code_dim, eps)
        self.conv2 = _StyledConv(channels, channels, 3, code_dim, eps)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return x + cast("Tensor", self.conv2(torch.relu(self.conv1(x, code)), code))


class StyleTransformer(nn.Module):
    """Content [N, 3, H, W] in [0, 1] and style code [N, 100] → stylised [N, 3, H, W] in [0, 1].

    channels: widths at full, half and quarter resolution ((8, 16, 32) in the mobile release,
    (32, 64, 128) in the paper). Any height and width of at least 16.
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (8, 16, 32),
        residuals: int = 5,
        code_dim: int = STYLE_CODE_DIM,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        full, half, quarter = channels
        self.contract1 = MirrorConv2d(3, full, 9)
        self.contract2 = MirrorConv2d(full, half, 3, stride=2)
        self.contract3 = MirrorConv2d(half, quarter, 3, stride=2)
        self.residuals = nn.ModuleList(
            _StyledResidual(quarter, code_dim, eps) for _ in range(residuals)
        )
        self.expand1 = _StyledConv(quarter, half, 3, code_dim, eps)
        self.expand2 = _StyledConv(half, full, 3, code_dim, eps)
        self.expand3 = _StyledConv(full, 3, 9, code_dim, eps)

    def forward(self, image: Tensor, style_code: Tensor) -> Tensor:
        x = torch.relu(self.contract1(image))  # [N, 8, H, W]
        x = torch.relu(self.contract2(x))  # [N, 16, ⌈H/2⌉, ⌈W/2⌉]
        x = torch.relu(self.contract3(x))  # [N, 32, ⌈H/4⌉, ⌈W/4⌉]
        for residual in self.residuals:
            x = residual(x, style_code)
        x = torch.relu(self.expand1(upsample_nearest(x), style_code))  # [N, 16, ~H/2, ~W/2]
        x = torch.relu(self.expand2(upsample_nearest(x), style_code))  # [N, 8, ~H, ~W]
        return crop_to(torch.sigmoid(self.expand3(x, style_code)), image)  # [N, 3, H, W]
