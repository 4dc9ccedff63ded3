"""Projection discriminator (Miyato & Koyama 2018, arXiv:1802.05637) with self-attention and a head
that names the class (Odena et al. 2017, arXiv:1610.09585).

Everything is spectrally normalised. There is no batch norm: real and generated images can share a
batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from velatura.export.networks.biggan import SelfAttention


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Feature maps by the resolution at which they leave a block: from half the image's to 4."""

    classes: int
    channels: Mapping[int, int] = field(default_factory=lambda: {32: 32, 16: 64, 8: 128, 4: 192})
    attention_resolution: int = 16


class DownBlock(nn.Module):
    """Residual block that halves the size: [N, in, H, W] → [N, out, H/2, W/2]."""

    def __init__(self, in_channels: int, out_channels: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv0 = spectral_norm(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.conv1 = spectral_norm(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = spectral_norm(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else F.relu(x)  # the image itself keeps its negative half
        h = self.conv1(F.relu(self.conv0(h)))
        skip: Tensor = self.skip(F.avg_pool2d(x, 2))
        return F.avg_pool2d(h, 2) + skip


class Discriminator(nn.Module):
    """image [N, 3, R, R] in [-1, 1], class_weights [N, C] → score [N] and class logits [N, C].

    The score is higher for real images of the class.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        sizes = sorted(config.channels, reverse=True)
        widths = [3, *(config.channels[size] for size in sizes)]
        layers: list[nn.Module] = []
        for index, size in enumerate(sizes):
            layers.append(DownBlock(widths[index], widths[index + 1], first=index == 0))
            if size == config.attention_resolution:
                layers.append(SelfAttention(widths[index + 1]))
        self.features = nn.Sequential(*layers)
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.embed = spectral_norm(nn.Linear(config.classes, widths[-1], bias=False))
        self.classify = spectral_norm(nn.Linear(widths[-1], config.classes))

    def forward(self, image: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.features(image)).sum(dim=(2, 3))  # [N, C, 4, 4] → [N, C]
        projection = (self.embed(class_weights) * h).sum(dim=1)  # [N]
        return self.score(h).squeeze(1) + projection, self.classify(h)
