"""BigGAN (Brock et al. 2018, arXiv:1809.11096) with the names of BigGAN-PyTorch's state dicts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.biggan_layers import (
    PlainStandingNorm,
    PooledAttention,
    StandingNorm,
    doubled,
    repeated,
)

_EPS = 1e-5  # of every batch norm; files do not say theirs, this is the project's default


@dataclass(frozen=True)
class BigGanConfig:
    """What rebuilds the network; read off the tensors' shapes."""

    classes: tuple[str, ...]
    z_dim: int
    chunk_dim: int
    """Part of z for each block and the first layer; 0 where all of z goes to the first only."""
    embedding_dim: int
    """Of the embedding that all blocks share; 0 where each norm has a row for each class."""
    channels: tuple[int, ...]
    """Feature maps at bottom, 2·bottom, … pixels."""
    attention: tuple[int, ...]
    """Blocks that end in self-attention."""
    bottom: int = 4

    @property
    def resolution(self) -> int:
        return self.bottom << (len(self.channels) - 1)


class _UpBlock(nn.Module):
    """[N, in, H, W] → [N, out, 2H, 2W]."""

    def __init__(self, inputs: int, outputs: int, condition_dim: int) -> None:
        super().__init__()
        self.bn1 = StandingNorm(inputs, condition_dim, _EPS)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn2 = StandingNorm(outputs, condition_dim, _EPS)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_sc = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = doubled(self.conv1, F.relu(self.bn1(x, condition)))  # [N, out, 2H, 2W]
        h = self.conv2(F.relu(self.bn2(h, condition)))
        # A 1×1 convolution and the repetition commute; convolving first is a quarter of the work.
        out: Tensor = h + repeated(self.conv_sc(x))
        return out


class BigGan(nn.Module):
    """z [N, z_dim], class_weights [N, C] (one-hot rows, or a mixture) → image [N, 3, R, R] in
    [-1, 1]."""

    def __init__(self, config: BigGanConfig) -> None:
        super().__init__()
        self.config = config
        classes = len(config.classes)
        condition_dim = config.embedding_dim + config.chunk_dim or classes
        if config.embedding_dim:
            self.shared = nn.Embedding(classes, config.embedding_dim)
        first = config.channels[0] * config.bottom**2
        self.linear = nn.Linear(config.chunk_dim or config.z_dim, first)
        self.blocks = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(pairwise(config.channels)):
            parts: list[nn.Module] = [_UpBlock(inputs, outputs, condition_dim)]
            if index in config.attention:
                parts.append(PooledAttention(outputs))
            self.blocks.append(nn.ModuleList(parts))
        last = config.channels[-1]
        self.output_layer = nn.Sequential(
            PlainStandingNorm(last, _EPS), nn.ReLU(), nn.Conv2d(last, 3, 3, padding=1)
        )

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        config = self.config
        classes = class_weights
        if config.embedding_dim:
            classes = class_weights @ self.shared.weight  # [N, embedding_dim]
        chunks = torch.split(z, config.chunk_dim, dim=1) if config.chunk_dim else (z,)
        x = self.linear(chunks[0]).unflatten(1, (-1, config.bottom, config.bottom))
        for index, parts in enumerate(self.blocks):
            condition = classes
            if config.chunk_dim:
                condition = torch.cat([classes, chunks[index + 1]], dim=1)
            x = parts[0](x, condition)  # type: ignore[index]  # a ModuleList of one or two
            if index in config.attention:
                x = parts[1](x)  # type: ignore[index]
        image: Tensor = self.output_layer(x)  # [N, 3, R, R]
        return image.tanh()
