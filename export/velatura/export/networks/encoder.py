"""Image to W+ latents, in the form of Tov et al. 2021 (e4e, arXiv:2102.02766).

One latent `w0` says what the image is; each later layer of W+ adds its own small delta. Training
can leave the deltas out at first (`delta_scale = 0`), which keeps the latents near W, where edits
work best. The convolutions are plain and without normalisation: batches of any size, and no
statistics to fold at export.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder. Stage i halves the size and has `channels[i]` and `blocks[i]` blocks."""

    resolution: int = 128
    num_ws: int = 12
    w_dim: int = 128
    channels: tuple[int, ...] = (32, 64, 128, 128, 128)
    blocks: tuple[int, ...] = (1, 2, 2, 2, 1)
    head_channels: int = 48

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.blocks):
            raise ValueError(
                f"encoder: {len(self.channels)} channels but {len(self.blocks)} block counts; "
                "give one of each for every stage"
            )
        if self.resolution >> len(self.channels) != 4:
            raise ValueError(
                f"encoder: {len(self.channels)} stages take {self.resolution} px to "
                f"{self.resolution / 2 ** len(self.channels):g} px instead of 4; "
                "use log2(resolution) - 2 stages"
            )


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, a=_SLOPE)
    nn.init.zeros_(cast("Tensor", conv.bias))
    return conv


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; stride 2 halves the size.

    The sum is divided by √2, which keeps the variance from growing with depth without any norm.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv0 = _convolution(in_channels, out_channels, 3, stride)
        self.conv1 = _convolution(out_channels, out_channels, 3)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            nn.init.kaiming_normal_(self.shortcut.weight, nonlinearity="linear")
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        y = F.leaky_relu(self.conv0(x), _SLOPE)
        y = F.leaky_relu(self.conv1(y), _SLOPE)
        if self.shortcut is not None:
            x = F.avg_pool2d(x, 2) if self.stride == 2 else x
            x = self.shortcut(x)
        return (x + y) * math.sqrt(0.5)


class Encoder(nn.Module):
    """Image [N, 3, R, R] in [-1, 1] → w_plus [N, num_ws, w_dim].

    `delta_scale` multiplies the deltas: 0 trains `w0` alone (and skips the deltas' head), 1 is the
    whole network and what is exported. `w_avg` is where an untrained encoder starts; set it to the
    generator's average w before training.
    """

    w_avg: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.delta_scale = 1.0
        first = config.channels[0]
        self.stem = _convolution(3, first, 5, stride=2)
        self.stages = nn.ModuleList()
        channels = first
        for i, (out_channels, count) in enumerate(zip(config.channels, config.blocks, strict=True)):
            stage: list[nn.Module] = []
            for j in range(count):
                stride = 2 if j == 0 and i > 0 else 1  # the stem has halved the first already
                stage.append(ResidualBlock(channels, out_channels, stride))
                channels = out_channels
            self.stages.append(nn.Sequential(*stage))
        self.neck = _convolution(channels, config.head_channels, 1)
        features = config.head_channels * 4 * 4
        self.w0 = nn.Linear(features, config.w_dim)
        self.deltas = nn.Linear(features, (config.num_ws - 1) * config.w_dim)
        # Features are divided by √features (equalised learning rate), or Adam's first steps would
        # throw latents that sum hundreds of features far off.
        self.head_gain = 1 / math.sqrt(features)
        nn.init.normal_(self.w0.weight, std=0.1)
        nn.init.zeros_(self.w0.bias)
        # Deltas start at nothing, so that unlocking them does not disturb a trained w0.
        nn.init.zeros_(self.deltas.weight)
        nn.init.zeros_(self.deltas.bias)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(image), _SLOPE)  # [N, 32, R/2, R/2]
        for stage in self.stages:
            x = stage(x)
        x = F.leaky_relu(self.neck(x), _SLOPE).flatten(1) * self.head_gain  # [N, features]
        w0: Tensor = (self.w0(x) + self.w_avg).unsqueeze(1)  # [N, 1, w_dim]
        if self.delta_scale == 0:
            return w0.expand(-1, self.config.num_ws, -1)  # [N, num_ws, w_dim]
        deltas = self.deltas(x).unflatten(1, (self.config.num_ws - 1, self.config.w_dim))
        if self.delta_scale != 1:
            deltas = deltas * self.delta_scale
        # The first layer is w0 itself.
        return torch.cat([w0, w0 + deltas], dim=1)  # [N, num_ws, w_dim]
