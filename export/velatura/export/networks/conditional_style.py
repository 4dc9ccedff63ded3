"""Many fixed styles in one network (Dumoulin et al. 2017, arXiv:1610.07629).

The convolutions are shared; each style owns one scale and one shift per normalised channel.
Weights that sum to one mix styles linearly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from velatura.export.networks.style_layers import (
    MirrorConv2d,
    crop_to,
    modulated_instance_norm,
    upsample_nearest,
)


class ConditionalInstanceNorm(nn.Module):
    """x [N, C, H, W] and style weights [N, P] → [N, C, H, W]."""

    def __init__(self, channels: int, styles: int, eps: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(styles, channels))
        self.beta = nn.Parameter(torch.zeros(styles, channels))
        self.eps = eps

    def forward(self, x: Tensor, style_weights: Tensor) -> Tensor:
        scale = style_weights @ self.gamma  # [N, C]
        shift = style_weights @ self.beta  # [N, C]
        return modulated_instance_norm(x, scale, shift, self.eps)


class _ConditionalConv(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, styles: int, eps: float
    ) -> None:
        super().__init__()
        self.conv = MirrorConv2d(in_channels, out_channels, kernel, stride, bias=False)
        self.norm = ConditionalInstanceNorm(out_channels, styles, eps)

    def forward(self, x: Tensor, style_weights: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x), style_weights)
        return out


class ConditionalStyle(nn.Module):
    """Content [N, 3, H, W] in [0, 1], style weights [N, P] → stylised [N, 3, H, W] in [0, 1].

    Any height and width of at least 16. Weights are used as given: normalise them to sum 1.
    """

    def __init__(
        self,
        styles: int = 26,
        contract: tuple[int, int, int] = (32, 32, 32),
        residuals: int = 6,
        expand: tuple[int, int] = (8, 4),
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        c1, c2, c3 = contract
        e1, e2 = expand
        self.contract = nn.ModuleList(
            [
                _ConditionalConv(3, c1, 9, 1, styles, eps),
                _ConditionalConv(c1, c2, 3, 2, styles, eps),
                _ConditionalConv(c2, c3, 3, 2, styles, eps),
            ]
        )
        self.residuals = nn.ModuleList(
            nn.ModuleList([_ConditionalConv(c3, c3, 3, 1, styles, eps) for _ in range(2)])
            for _ in range(residuals)
        )
        self.expand = nn.ModuleList(
            [
                _ConditionalConv(c3, e1, 3, 1, styles, eps),
                _ConditionalConv(e1, e2, 3, 1, styles, eps),
                _ConditionalConv(e2, 3, 9, 1, styles, eps),
            ]
        )

    def forward(self, image: Tensor, style_weights: Tensor) -> Tensor:
        x = image
        for layer in self.contract:
            x = torch.relu(layer(x, style_weights))  # [N, 32, ⌈H/4⌉, ⌈W/4⌉] at the end
        for pair in self.residuals:
            first, second = pair.children()
            x = x + second(torch.relu(first(x, style_weights)), style_weights)
        for layer in list(self.expand)[:2]:
            x = torch.relu(layer(upsample_nearest(x), style_weights))
        x = torch.sigmoid(self.expand[2](x, style_weights))
        return crop_to(x, image)  # [N, 3, H, W]
