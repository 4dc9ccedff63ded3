"""Layers that the published BigGANs share: conditional batch norm and pooled self-attention.

Weights are plain: the loaders divide them by their spectral norm. `networks.biggan`, which is
trained here, has layers of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.upsampling import upsample_convolve

_NEAREST = (1, 1)  # taps of the filter that repeats every sample


class StandingNorm(nn.Module):
    """Batch norm by stored statistics, with gain 1 + G·c and bias B·c of the condition c [N, D]."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, condition_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Linear(condition_dim, channels, bias=False)
        self.bias = nn.Linear(condition_dim, channels, bias=False)
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale = torch.rsqrt(self.stored_var + self.eps) * (1 + self.gain(condition))  # [N, C]
        shift = self.bias(condition) - self.stored_mean * scale  # [N, C]
        out: Tensor = x * scale[:, :, None, None] + shift[:, :, None, None]
        return out


class PlainStandingNorm(nn.Module):
    """Batch norm by stored statistics, with one gain and bias a channel."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.stored_mean, self.stored_var, self.gain, self.bias, eps=self.eps
        )


class PooledAttention(nn.Module):
    """x + γ · O(softmax(θᵀφ) G) of x [N, C, H, W], φ and G halved in size by max pooling.

    θ and φ have C/8 channels, G C/2; the products are not divided by √d, unlike today's attention.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = channels // 8, channels // 2
        self.theta = nn.Conv2d(channels, narrow, 1, bias=False)
        self.phi = nn.Conv2d(channels, narrow, 1, bias=False)
        self.g = nn.Conv2d(channels, half, 1, bias=False)
        self.o = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        theta = self.theta(x).flatten(2)  # [N, C/8, HW]
        phi = F.max_pool2d(self.phi(x), 2).flatten(2)  # [N, C/8, HW/4]
        values = F.max_pool2d(self.g(x), 2).flatten(2)  # [N, C/2, HW/4]
        shares = (theta.transpose(1, 2) @ phi).softmax(dim=2)  # [N, HW, HW/4]
        mixed = values @ shares.transpose(1, 2)  # [N, C/2, HW]
        out: Tensor = self.o(mixed.unflatten(2, (height, width)))  # [N, C, H, W]
        return x + self.gamma * out


def doubled(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv` (3×3) of x repeated to twice its size, [N, in, H, W] → [N, out, 2H, 2W]: one
    transposed convolution, less than half the operations."""
    out = upsample_convolve(x, conv.weight, _NEAREST)
    return out if conv.bias is None else out + conv.bias[:, None, None]


def repeated(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, C, 2H, 2W], every sample four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
