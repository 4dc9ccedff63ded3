"""Layers that the feed-forward style networks share: mirrored convolution and modulated norm.

Both keep any height and width, and both are written so that one ONNX graph serves every batch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MirrorConv2d(nn.Conv2d):
    """Convolution after mirroring half its kernel: [N, C, H, W] → [N, C', ⌈H/s⌉, ⌈W/s⌉].

    Mirrored edges avoid the frame that zero padding paints around a stylised picture.
    Height and width must exceed half the kernel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=stride, bias=bias)
        self.margin = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        m = self.margin
        padded = F.pad(x, (m, m, m, m), mode="reflect")
        return F.conv2d(padded, self.weight, self.bias, self.stride)


def modulated_instance_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Normalise each channel of each picture, then scale and shift it (Dumoulin et al. 2017).

    x [N, C, H, W]; scale and shift [N, C]. The batch is folded into the channels, so that one
    InstanceNormalization node with N·C scales does the whole; its statistics are float32 on every
    provider.
    """
    n, c = scale.shape
    folded = x.reshape(1, n * c, x.shape[2], x.shape[3])  # [1, N·C, H, W]
    normed = F.instance_norm(folded, weight=scale.reshape(-1), bias=shift.reshape(-1), eps=eps)
    return normed.reshape(x.shape)


def upsample_nearest(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, C, 2H, 2W]."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def crop_to(x: Tensor, like: Tensor) -> Tensor:
    """Drop the up to three surplus rows and columns that two halvings and doublings add."""
    return x[:, :, : like.shape[2], : like.shape[3]]
