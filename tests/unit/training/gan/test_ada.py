"""Adaptive augmentation: differentiable, unchanged where skipped, invertible as a mixture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from velatura.training.gan.ada import colour, corruption, geometry
from velatura.training.gan.ada.controller import AdaController
from velatura.training.gan.ada.pipeline import PRESETS, AugmentPipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_images(count: int, size: int) -> Tensor:
    """Images without fine detail, in [-1, 1]: [N, 3, size, size]."""
    coarse = torch.rand(count, 3, 4, 4, generator=seeded()) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"none"}))
def test_every_preset_is_differentiable(preset: str) -> None:
    """Gradients of a weighted sum, against finite differences in float64, along random steps."""
    images = torch.randn(6, 3, 32, 32, generator=seeded(), dtype=torch.float64)
    weights = torch.randn(6, 3, 32, 32, generator=seeded(1), dtype=torch.float64)
    pipe = AugmentPipe(preset)

    def value(x: Tensor) -> Tensor:
        return (pipe(x, 0.9, seeded(5)) * weights).sum()

    images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(images), images)
    for trial in range(4):
        step = torch.randn(images.shape, generator=seeded(10 + trial), dtype=torch.float64)
        with torch.no_grad():
            numeric = (value(images + 1e-4 * step) - value(images - 1e-4 * step)) / 2e-4
        assert (gradient * step).sum().item() == pytest.approx(numeric.item(), rel=1e-6)
    assert (gradient.flatten(1).abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"none"}))
def test_the_same_seed_gives_the_same_images_and_another_one_others(preset: str) -> None:
    images, pipe = smooth_images(8, 32), AugmentPipe(preset)
    once, again = (pipe(images, 0.7, seeded(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, pipe(images, 0.7, seeded(4)))
    assert torch.isfinite(once).all()


def test_p_zero_is_the_identity_to_the_bit() -> None:
    images = torch.randn(4, 3, 32, 32)
    assert AugmentPipe("bgcfnc")(images, 0.0, seeded()) is images


@pytest.mark.parametrize("preset", ["blit", "geom", "color", "noise", "cutout"])
def test_skipped_images_are_untouched_and_their_share_is_as_published(preset: str) -> None:
    """Each augmentation is skipped with 1 − p; an image is untouched where all of them are."""
    count, p = 1000, 0.4
    # Random samples: no flip or turn maps them to themselves.
    images = torch.randn(count, 3, 32, 32, generator=seeded())
    changed = AugmentPipe(preset)(images, p, seeded(1)) != images
    share = 1 - changed.flatten(1).any(dim=1).double().mean().item()
    skip = 1 - p
    pixels = 32 * 0.125  # whole shifts of ±4 pixels; ±4 itself has half of an interval's chance
    still = (1 / (2 * pixels)) ** 2
    expected = {
        "blit": (skip + p / 2) * (skip + p / 4) * (skip + p * still),  # the identity among them
        "geom": skip**4,  # scale, both rotations together, stretch, shift
        "color": skip**4 * (skip + p / 2),
        "noise": skip,
        "cutout": skip,
    }[preset]
    # A flip with half a turn or so can undo a turn and a shift; that is rarer than the tolerance.
    assert share == pytest.approx(expected, abs=0.05)


def orientations() -> tuple[Tensor, dict[tuple[int, ...], int]]:
    """Four plain quarters in the eight orientations of a square, and how their corners read.

    Whole shifts move the quarters' borders and leave the corners alone.
    """
    image = torch.zeros(1, 3, 16, 16)
    for index, (row, column) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
        image[:, :, row : row + 8, column : column + 8] = index
    eight = [f.rot90(k, (2, 3)) for f in (image, image.flip(3)) for k in range(4)]
    return torch.cat(eight), {corners(e)[0]: i for i, e in enumerate(eight)}


def corners(images: Tensor) -> list[tuple[int, ...]]:
    read = images[:, 0, ::15, ::15].flatten(1).round().int().tolist()
    return [tuple(row) for row in read]


def orientation_mixture(p: float, count: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """How the pipeline mixes the eight orientations, [from, to]: as measured, and as published."""
    eight, index_of = orientations()
    measured, published = np.zeros((8, 8)), np.zeros((8, 8))
    for start in range(8):
        made = AugmentPipe("blit")(eight[[start]].repeat(count, 1, 1, 1), p, seeded(start))
        for read in corners(made):
            measured[start, index_of[read]] += 1 / count
        for flipped, p_flip in ((False, 1 - p / 2), (True, p / 2)):
            mirrored = eight[[start]].flip(3) if flipped else eight[[start]]
            for k in range(4):
                p_turn = p / 4 + (1 - p) * (k == 0)
                (read,) = corners(mirrored.rot90(k, (2, 3)))
                published[start, index_of[read]] += p_flip * p_turn
    return measured, published


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_orientations_mix_invertibly_below_one(p: float) -> None:
    measured, published = orientation_mixture(p)
    np.testing.assert_allclose(measured, published, atol=0.05)
    # Mirror images and turns shrink what tells orientations apart by 1 − p each.
    assert np.linalg.cond(published) == pytest.approx((1 - p) ** -2)
    assert np.linalg.cond(measured) < 2 * (1 - p) ** -2


def test_orientations_are_lost_at_one() -> None:
    measured, published = orientation_mixture(1.0)
    np.testing.assert_allclose(measured, published, atol=0.05)
    np.testing.assert_allclose(published, np.full((8, 8), 1 / 8))
    assert np.linalg.matrix_rank(published) == 1


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_blits_move_samples_and_mix_none(turns: int) -> None:
    images = torch.randn(1, 3, 16, 16)
    turned = geometry.blit(images, geometry.quarter_turns(torch.tensor([float(turns)])))
    assert torch.equal(turned, torch.rot90(images, turns, (2, 3)))
    flipped = geometry.blit(images, geometry.scaling(torch.tensor([-1.0]), torch.ones(1)))
    assert torch.equal(flipped, images.flip(3))
    shifted = geometry.blit(images, geometry.translation(torch.tensor([4 / 16]), torch.zeros(1)))
    assert torch.equal(shifted[..., :-2], images[..., 2:])
    assert torch.equal(shifted[..., -2:], images[..., -2:].flip(3))  # mirrored at the edge


def test_warping_by_the_identity_hardly_blurs() -> None:
    images = smooth_images(2, 32)
    warped = geometry.warp(images, geometry.identity(2))
    assert (warped - images).abs().max().item() < 0.05


def test_shrinking_does_not_alias() -> None:
    """A pattern finer than the smaller image can show turns grey instead of coarse stripes."""
    stripes = torch.ones(1, 3, 64, 64)
    stripes[..., ::2] = -1
    two = torch.full((1,), 2.0)
    small = geometry.warp(stripes, geometry.scaling(two, two))
    assert small.abs().max().item() < 0.1


def test_warping_magnifies_about_the_centre() -> None:
    ramp = torch.linspace(-1, 1, 65)[None, None, None, :].expand(1, 3, 65, 65)
    half = torch.full((1,), 0.5)
    larger = geometry.warp(ramp, geometry.scaling(half, half))
    torch.testing.assert_close(larger, ramp / 2, atol=2e-3, rtol=0)


def test_colours() -> None:
    grey, red = torch.full((1, 3, 1, 1), 0.3), torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)

    def turned(image: Tensor, matrix: Tensor) -> list[float]:
        found: list[float] = colour.recolour(image, matrix).flatten().tolist()
        return found

    third = torch.tensor([2 * math.pi / 3])
    assert turned(red, colour.hue_rotation(third)) == pytest.approx([0, 1, 0], abs=1e-6)
    assert turned(grey, colour.hue_rotation(third)) == pytest.approx([0.3] * 3, abs=1e-6)
    assert turned(red, colour.saturation(torch.zeros(1))) == pytest.approx([1 / 3] * 3, abs=1e-6)
    assert turned(grey, colour.saturation(torch.tensor([3.0]))) == pytest.approx([0.3] * 3)
    assert turned(grey, colour.luma_flip(torch.ones(1))) == pytest.approx([-0.3] * 3)
    assert turned(red, colour.luma_flip(torch.ones(1))) == pytest.approx([1 / 3, -2 / 3, -2 / 3])
    assert turned(red, colour.luma_flip(torch.zeros(1))) == pytest.approx([1, 0, 0])
    assert turned(grey, colour.brightness(torch.tensor([0.2]))) == pytest.approx([0.5] * 3)
    assert turned(grey, colour.contrast(torch.tensor([2.0]))) == pytest.approx([0.6] * 3)


def test_bands_sum_to_the_image_and_gains_act_on_one_each() -> None:
    images = torch.randn(2, 3, 32, 32, generator=seeded())
    torch.testing.assert_close(corruption.amplify_bands(images, torch.ones(2, 4)), images)
    finest = torch.ones(2, 4)
    finest[:, 0] = 0
    smooth, noisy = smooth_images(2, 32), images
    lost = (corruption.amplify_bands(noisy, finest) - noisy).square().mean() / noisy.var()
    kept = (corruption.amplify_bands(smooth, finest) - smooth).square().mean() / smooth.var()
    assert lost > 0.6  # noise is mostly fine
    assert kept < 0.01


def test_cut_outs_are_squares_about_their_centre() -> None:
    images = torch.ones(2, 3, 32, 32)
    middle = torch.full((2,), 0.5)
    holed = corruption.cut_out(images, middle, middle, torch.tensor([0.5, 0.0]))
    assert holed[0].eq(0).sum().item() == 3 * 16 * 16
    assert holed[0, :, 8:24, 8:24].eq(0).all()
    assert torch.equal(holed[1], images[1])


def test_unknown_presets_and_probabilities_are_named() -> None:
    with pytest.raises(ValueError, match="augment: 'colour'; choose one of none, blit, geom"):
        AugmentPipe("colour")
    with pytest.raises(ValueError, match=r"p: 1\.5"):
        AugmentPipe()(torch.zeros(1, 3, 32, 32), 1.5, seeded())


def test_p_rises_above_the_target_and_falls_below_it() -> None:
    ada = AdaController(target=0.6, kimg=0.1, interval=2)
    sure, unsure = torch.full((10,), 3.0), torch.tensor([1.0] * 7 + [-1.0] * 3)
    ada.observe(sure)
    assert ada.p == 0  # only after a whole interval
    ada.observe(sure)
    assert ada.r_t == 1
    assert ada.p == pytest.approx(20 / 100)  # 20 of the 100 images that take p from 0 to 1
    for _ in range(2):
        ada.observe(unsure)
    assert ada.r_t == pytest.approx(0.4)
    assert ada.p == pytest.approx(0.0)
    for _ in range(2):
        ada.observe(unsure)
    assert ada.p == 0  # never below
    for _ in range(20):
        ada.observe(sure)
    assert ada.p == 0.8  # never above the limit


def test_a_restored_controller_goes_on_within_its_interval() -> None:
    whole, part = AdaController(interval=3), AdaController(interval=3)
    logits = [torch.randn(5, generator=seeded(s)) + 0.3 for s in range(9)]
    for step in logits[:4]:
        part.observe(step)
    resumed = AdaController(interval=3)
    resumed.restore(part.state())
    for step in logits[4:]:
        resumed.observe(step)
    for step in logits:
        whole.observe(step)
    assert resumed.state() == whole.state()


@pytest.mark.parametrize(
    "settings", [{"target": 1.0}, {"kimg": 0.0}, {"interval": 0}, {"limit": 1.2}, {"p": 0.9}]
)
def test_settings_out_of_range_are_named(settings: dict[str, float]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name}: "):
        AdaController(**settings)  # type: ignore[arg-type]
