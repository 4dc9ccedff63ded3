"""The augmentation pipeline: which augmentations there are, how far they go, in what order.

Why generated images do not learn the augmentations (Karras et al. 2020, section 2.2): each one is
skipped with probability 1 − p, independently, so the distribution that the discriminator sees is a
fixed linear operator applied to the true one. As long as that operator is invertible, two
distributions look alike after it only if they are alike before it, and the generator's is drawn to
the undistorted images. Flips, quarter turns and inverted luma, drawn evenly from a finite group of
n, mix orientations by (1 − p)·I + p/n·J (J all ones), whose eigenvalues are 1 and 1 − p: invertible
for every p < 1. For the continuous ones the paper argues likewise, and measured no leak for p up
to 0.8.

All draws come from the generator that the caller hands in: the same seed gives the same images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from velatura.training.gan.ada import colour, corruption, geometry

_BLIT_REACH = 0.125  # whole-pixel shifts, in image widths
_SCALE = 0.2  # standard deviations, in octaves
_SHIFT = 0.125  # in image widths
_BRIGHTNESS = 0.2
_CONTRAST = 0.5  # in octaves
_SATURATION = 1.0  # in octaves
_BAND_GAIN = 1.0  # in octaves
_NOISE = 0.1
_HOLE = 0.5  # side of a cut-out, in image widths

PRESETS: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "blit": frozenset({"blit"}),
    "geom": frozenset({"geom"}),
    "color": frozenset({"color"}),
    "filter": frozenset({"filter"}),
    "noise": frozenset({"noise"}),
    "cutout": frozenset({"cutout"}),
    "bg": frozenset({"blit", "geom"}),
    "bgc": frozenset({"blit", "geom", "color"}),
    "bgcf": frozenset({"blit", "geom", "color", "filter"}),
    "bgcfn": frozenset({"blit", "geom", "color", "filter", "noise"}),
    "bgcfnc": frozenset({"blit", "geom", "color", "filter", "noise", "cutout"}),
}


@dataclass(frozen=True)
class AugmentPipe:
    """Augmentations of one preset of PRESETS: differentiable, per image, each with probability p.

    Raises ValueError for an unknown preset.
    """

    preset: str = "bgc"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"augment: {self.preset!r}; choose one of {', '.join(PRESETS)}")

    def __call__(self, images: Tensor, p: float, rng: torch.Generator) -> Tensor:
        """images [N, C, R, R], about [-1, 1] → the same shape; C is 3 where colours change.

        p is the probability of each augmentation, 0 to 1; at 0 the images come back untouched.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"p: {p}; the augmentations' probability must lie in 0 to 1")
        kinds = PRESETS[self.preset]
        if p == 0 or not kinds:
            return images
        draw = _Draw(images.shape[0], p, rng)
        if "blit" in kinds:
            images = _blit(images, draw)
        if "geom" in kinds:
            images = _warp(images, draw)
        if "color" in kinds:
            images = _recolour(images, draw)
        if "filter" in kinds:
            images = _filter(images, draw)
        if "noise" in kinds:
            images = _add_noise(images, draw)
        return _cut_out(images, draw) if "cutout" in kinds else images


@dataclass(frozen=True)
class _Draw:
    """Random numbers for `count` images."""

    count: int
    p: float
    rng: torch.Generator

    def applied(self, p: float | None = None) -> Tensor:
        """Bool [N]: which images get the next augmentation."""
        return self.uniform() < (self.p if p is None else p)

    def uniform(self) -> Tensor:
        return torch.rand(self.count, generator=self.rng)

    def normal(self, deviation: float) -> Tensor:
        return torch.randn(self.count, generator=self.rng) * deviation

    def octaves(self, deviation: float) -> Tensor:
        """Log-normal factors [N], around one."""
        return torch.exp2(self.normal(deviation))

    def one_of(self, options: int) -> Tensor:
        """Whole numbers [N] as floats, 0 to options - 1, evenly."""
        return (self.uniform() * options).floor()


def _blit(images: Tensor, draw: _Draw) -> Tensor:
    """Mirror image, quarter turns, shifts by whole pixels."""
    size = images.shape[2]
    one = torch.ones(draw.count)
    flip = geometry.scaling(1 - 2 * draw.one_of(2), one)
    matrix = geometry.where(draw.applied(), flip)
    turn = geometry.quarter_turns(draw.one_of(4))
    matrix = matrix @ geometry.where(draw.applied(), turn)
    pixels = [((draw.uniform() * 2 - 1) * _BLIT_REACH * size).round() for _ in range(2)]
    shift = geometry.translation(*(p * 2 / size for p in pixels))
    matrix = matrix @ geometry.where(draw.applied(), shift)
    return _changed(images, matrix, geometry.blit)


def _warp(images: Tensor, draw: _Draw) -> Tensor:
    """Scale, rotate, stretch along a direction, rotate again, shift by fractions."""
    factor = draw.octaves(_SCALE)
    matrix = geometry.where(draw.applied(), geometry.scaling(factor, factor))
    # Two rotations, each skipped with √(1 − p): without any with 1 − p.
    p_rotation = 1 - math.sqrt(1 - draw.p)
    turn = geometry.rotation((draw.uniform() * 2 - 1) * math.pi)
    matrix = matrix @ geometry.where(draw.applied(p_rotation), turn)
    factor = draw.octaves(_SCALE)
    matrix = matrix @ geometry.where(draw.applied(), geometry.scaling(factor, 1 / factor))
    turn = geometry.rotation((draw.uniform() * 2 - 1) * math.pi)
    matrix = matrix @ geometry.where(draw.applied(p_rotation), turn)
    shift = geometry.translation(draw.normal(2 * _SHIFT), draw.normal(2 * _SHIFT))
    matrix = matrix @ geometry.where(draw.applied(), shift)
    return _changed(images, matrix, geometry.warp)


def _recolour(images: Tensor, draw: _Draw) -> Tensor:
    """Brightness, contrast, inverted luma, hue, saturation, in this order."""
    matrix = geometry.where(draw.applied(), colour.brightness(draw.normal(_BRIGHTNESS)))
    for change in (
        colour.contrast(draw.octaves(_CONTRAST)),
        colour.luma_flip(draw.one_of(2)),
        colour.hue_rotation((draw.uniform() * 2 - 1) * math.pi),
        colour.saturation(draw.octaves(_SATURATION)),
    ):
        matrix = geometry.where(draw.applied(), change) @ matrix
    return _changed(images, matrix, colour.recolour)


def _filter(images: Tensor, draw: _Draw) -> Tensor:
    """Each octave is amplified with probability p, by itself."""
    gains = torch.ones(draw.count, corruption.BANDS)
    for band in range(corruption.BANDS):
        one = torch.ones(draw.count)
        single = torch.ones(draw.count, corruption.BANDS)
        single[:, band] = torch.where(draw.applied(), draw.octaves(_BAND_GAIN), one)
        gains = gains * corruption.balanced_gains(single)
    return corruption.amplify_bands(images, gains.to(images.dtype))


def _add_noise(images: Tensor, draw: _Draw) -> Tensor:
    sigma = draw.normal(_NOISE).abs() * draw.applied()
    noise = torch.randn(images.shape, generator=draw.rng)
    return corruption.add_noise(images, sigma.to(images.dtype), noise.to(images.dtype))


def _cut_out(images: Tensor, draw: _Draw) -> Tensor:
    return corruption.cut_out(images, draw.uniform(), draw.uniform(), draw.applied() * _HOLE)


def _changed(images: Tensor, matrices: Tensor, apply: geometry.Apply) -> Tensor:
    """Apply the matrices; images whose matrix is the identity are left exactly as they are."""
    identity = torch.eye(matrices.shape[1])
    changed = (matrices != identity).flatten(1).any(dim=1).nonzero()[:, 0]  # [M]
    if not changed.numel():
        return images
    done = apply(images[changed], matrices[changed].to(images.dtype))
    return images.index_copy(0, changed, done)
