"""The attribute classifier: an avatar to one group of logits an attribute, and its background.

It judges generators and edits, and its last features are what the domain's FID is measured in, so
it must not owe anything to them: it is trained on renders alone, and it is not served.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.checkpoints.native import load_state, read_config
from velatura.training.avatars.parts import LABEL_DIM


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of a classifier. The stem and every stage but the first halve the size."""

    resolution: int = 128
    channels: tuple[int, ...] = (32, 64, 128, 128)
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    neck: int = 32  # feature maps that are flattened with their places
    features: int = 256
    outputs: int = LABEL_DIM

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.blocks):
            raise ValueError(
                f"classifier: {len(self.channels)} channels but {len(self.blocks)} block counts; "
                "give one of each for every stage"
            )

    @property
    def places(self) -> int:
        """Height times width of the last stage's maps."""
        return (self.resolution >> len(self.channels)) ** 2


class _Residual(nn.Module):
    """ResNet block (He et al. 2016, arXiv:1512.03385): two 3×3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm0 = nn.BatchNorm2d(out_channels)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        y = F.relu(self.norm0(self.conv0(x)))
        y = self.norm1(self.conv1(y))
        return F.relu(y + self.shortcut(x))


class AttributeClassifier(nn.Module):
    """Image [N, 3, R, R] in [-1, 1] → [N, LABEL_DIM], laid out as `avatars.parts.label_slices`.

    Logits for each attribute's options; the last six are the background's samples in [-1, 1].
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        first = config.channels[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 5, 2, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        layers: list[nn.Module] = []
        channels = first
        for i, (out_channels, count) in enumerate(zip(config.channels, config.blocks, strict=True)):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                layers.append(_Residual(channels, out_channels, stride))
                channels = out_channels
        self.stages = nn.Sequential(*layers)
        # Flattened, not averaged: a mouth is a few pixels, and an average over the picture drowns
        # it (averaged, 32,000 images had taught no expression at all).
        self.neck = nn.Sequential(
            nn.Conv2d(channels, config.neck, 1, bias=False),
            nn.BatchNorm2d(config.neck),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(config.neck * config.places, config.features, bias=False),
            nn.BatchNorm1d(config.features),
            nn.ReLU(),
        )
        self.head = nn.Linear(config.features, config.outputs)

    def features(self, image: Tensor) -> Tensor:
        """Features [N, 256], non-negative: where the Fréchet distances are measured."""
        x = self.stem(image)  # [N, 32, R/2, R/2]
        features: Tensor = self.neck(self.stages(x))  # [N, 128, R/16, R/16] → [N, 256]
        return features

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(image))  # [N, LABEL_DIM]
        return scores


def load_classifier(weights: Path) -> AttributeClassifier:
    """A trained classifier in eval mode. Raises CheckpointError when the files do not fit."""
    config = read_config(weights, ClassifierConfig)
    return load_state(AttributeClassifier(config), weights)
