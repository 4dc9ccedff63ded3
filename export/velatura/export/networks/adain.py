"""Arbitrary style transfer by AdaIN (Huang and Belongie 2017, arXiv:1703.06868).

A VGG up to relu4_1 describes pictures; a style is the mean and deviation of each of its channels;
the content's channels are moved to them and decoded. Split here into predictor (style picture →
code) and transformer (content and code → picture). The layers' numbers are those of
pytorch-AdaIN's files, so that its state dicts fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.style_layers import crop_to

EPS = 1e-5
# Convolutions before each halving; the last one ends at relu4_1.
_ENCODER_STAGES = (2, 2, 4, 1)
# Convolutions before each doubling, from relu4_1 back to the picture.
_DECODER_STAGES = (1, 4, 2, 2)


class _CeilingPool(nn.Module):
    """Halves height and width, rounding up; for x ≥ 0, where a border of zeros changes nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2)


def encoder_positions() -> list[int]:
    """Numbers of the encoder's convolutions in pytorch-AdaIN's `vgg`, the first one 1×1."""
    positions, place = [0], 1
    for convolutions in _ENCODER_STAGES:
        for _ in range(convolutions):
            positions.append(place + 1)  # after its padding; a ReLU follows
            place += 3
        place += 1  # pooling
    return positions


def decoder_positions() -> list[int]:
    """Numbers of the decoder's convolutions in pytorch-AdaIN's `decoder`."""
    positions, place = [], 0
    for convolutions in _DECODER_STAGES:
        for _ in range(convolutions):
            positions.append(place + 1)
            place += 3
        place += 1  # doubling
    return positions


def build_encoder(widths: Sequence[int]) -> nn.Sequential:
    """`widths`: outputs of the nine 3×3 convolutions. [N, 3, H, W] → [N, C, ⌈H/8⌉, ⌈W/8⌉]."""
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    channels, remaining = 3, iter(widths)
    for stage, convolutions in enumerate(_ENCODER_STAGES):
        if stage:
            layers.append(_CeilingPool())
        for _ in range(convolutions):
            width = next(remaining)
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def build_decoder(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """`widths`: outputs of the nine convolutions, the last 3. [N, C, h, w] → [N, 3, 8h, 8w]."""
    layers: list[nn.Module] = []
    channels, remaining = inputs, iter(widths)
    for stage, convolutions in enumerate(_DECODER_STAGES):
        if stage:
            layers.append(nn.UpsamplingNearest2d(scale_factor=2))
        for _ in range(convolutions):
            width = next(remaining)
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers[:-1])  # the picture is not rectified


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of x [N, C, H, W], both [N, C]; the variance is the
    unbiased one plus `EPS`."""
    mean = x.mean(dim=(2, 3), keepdim=True)  # [N, C, 1, 1]
    others = x.shape[2] * x.shape[3] - 1
    variance = (x - mean).square().sum(dim=(2, 3)) / others
    return mean.flatten(1), (variance + EPS).sqrt()


class AdaInPredictor(nn.Module):
    """Style picture [N, 3, H, W] in [0, 1] → code [N, 2C]: means, then deviations."""

    def __init__(self, encoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat(channel_statistics(self.encoder(image)), dim=1)


class AdaInTransformer(nn.Module):
    """Content [N, 3, H, W] in [0, 1] and code [N, 2C] → picture [N, 3, H, W] in [0, 1].

    Any height and width of at least 16.
    """

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @property
    def channels(self) -> int:
        """Of the features; the code has twice as many numbers."""
        widths = [layer.out_channels for layer in self.encoder if isinstance(layer, nn.Conv2d)]
        return widths[-1]

    def forward(self, image: Tensor, style_code: Tensor) -> Tensor:
        features = self.encoder(image)  # [N, C, ⌈H/8⌉, ⌈W/8⌉]
        mean, deviation = channel_statistics(features)
        style_mean, style_deviation = style_code.chunk(2, dim=1)  # [N, C] each
        scale = style_deviation / deviation
        shift = style_mean - mean * scale
        moved = features * scale[:, :, None, None] + shift[:, :, None, None]
        return crop_to(self.decoder(moved), image).clamp(0, 1)  # [N, 3, H, W]
