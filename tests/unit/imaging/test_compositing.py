"""Compositing: the change arrives smoothly, rounded, within its range, and nowhere else."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest

from velatura.server.imaging.compositing import add_change, blend, measure
from velatura.server.imaging.frames import Frame, central_frame
from velatura.server.imaging.regions import BoxPart, Mask, RegionSpec, resolve, whole_image


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def change_of(side: int, scale: float = 30, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (side, side, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 128, 300, 1111])
def test_the_strips_make_what_one_resize_would(size: int) -> None:
    original, change = noise(size, size), change_of(128)
    kind = cv2.INTER_CUBIC if size >= 128 else cv2.INTER_AREA
    upsampled = cv2.resize(change, (size, size), interpolation=kind).reshape(size, size, 3)
    upsampled = np.clip(upsampled, change.min(axis=(0, 1)), change.max(axis=(0, 1)))
    expected = np.clip(np.rint(original + upsampled.astype(np.float64)), 0, 255)
    result = add_change(original, change, central_frame(size, size), whole_image(size, size))
    difference = np.abs(result - expected)
    assert difference.max() <= 1  # halves may round either way
    assert (difference > 0).mean() < 1e-3


def test_memory_does_not_grow_with_the_image() -> None:
    original, mask = noise(2000, 2000), whole_image(2000, 2000)
    frame, change = central_frame(2000, 2000), change_of(128)
    replaced = 255 - original
    for work in (
        lambda: add_change(original, change, frame, mask),
        lambda: blend(original, replaced, mask),
    ):
        tracemalloc.start()
        result = work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak - result.nbytes < 16 << 20  # as float32 the image would be 48 MB


def test_a_constant_change_arrives_whole_and_saturates() -> None:
    original = noise(90, 90)
    change = np.full((16, 16, 3), 20, np.float32)
    result = add_change(original, change, central_frame(90, 90), whole_image(90, 90))
    np.testing.assert_array_equal(result, np.minimum(original.astype(int) + 20, 255))


def test_steps_do_not_ring() -> None:
    original = np.full((256, 256, 3), 128, np.uint8)
    change = np.zeros((16, 16, 3), np.float32)
    change[:, 8:] = 60
    result = add_change(original, change, central_frame(256, 256), whole_image(256, 256))
    assert result.min() == 128
    assert result.max() == 188
    assert (np.diff(result[100, :, 0].astype(int)) >= 0).all()


def test_alpha_scales_the_change() -> None:
    original = np.full((64, 64, 3), 100, np.uint8)
    alpha = np.full((64, 64), 0.25, np.float32)
    mask = Mask(np.ones((64, 64), bool), alpha)
    change = np.full((8, 8, 3), 40, np.float32)
    assert (add_change(original, change, central_frame(64, 64), mask) == 110).all()


def test_nothing_outside_the_frame_changes_and_no_seam_shows() -> None:
    original = np.full((100, 300, 3), 100, np.uint8)
    change = np.full((16, 16, 3), 50, np.float32)
    frame = central_frame(300, 100)
    result = add_change(original, change, frame, whole_image(300, 100)).astype(int)
    assert (result[:, :100] == 100).all()
    assert (result[:, 200:] == 100).all()
    assert (result[:, 110:190] == 150).all()  # up to the image's own top and bottom
    assert np.abs(np.diff(result, axis=1)).max() <= 15  # a sixteenth of 100 is 6 pixels for 50
    hard = add_change(original, change, frame, whole_image(300, 100), seam_px=0)
    assert (hard[:, 100:200] == 150).all()
    assert (hard[:, :100] == 100).all()


@pytest.mark.parametrize("frame", [Frame(-40, -3, 120), Frame(60, 20, 100), Frame(500, 0, 20)])
def test_frames_may_overhang(frame: Frame) -> None:
    original = np.full((50, 90, 3), 100, np.uint8)
    change = np.full((16, 16, 3), 9, np.float32)
    result = add_change(original, change, frame, whole_image(90, 50), seam_px=0)
    y, x = np.mgrid[:50, :90]
    shown = (
        (x >= frame.x) & (x < frame.x + frame.size) & (y >= frame.y) & (y < frame.y + frame.size)
    )
    np.testing.assert_array_equal(result[..., 1], np.where(shown, 109, 100))


def test_blend_is_exact_at_both_ends_and_rounds_between() -> None:
    original, replaced = noise(200, 310), noise(200, 310, 5)
    mask = resolve(RegionSpec((BoxPart(30, 20, 200, 150),), feather_px=25), 310, 200)
    result = blend(original, replaced, mask)
    np.testing.assert_array_equal(result[mask.alpha == 0], original[mask.alpha == 0])
    np.testing.assert_array_equal(result[mask.alpha == 1], replaced[mask.alpha == 1])
    alpha = mask.alpha[..., None].astype(np.float64)
    exact = original * (1 - alpha) + replaced * alpha
    assert np.abs(result - exact).max() <= 0.5 + 1e-4


def test_measured_figures() -> None:
    original = np.full((20, 30, 3), 100, np.uint8)
    mask = resolve(RegionSpec((BoxPart(0, 0, 15, 20),)), 30, 20)
    result = original.copy()
    result[:, :15, 0] = 103
    figures = measure(original, result, mask)
    assert figures.max_difference_outside == 0
    assert figures.mean_difference_inside == pytest.approx(1)
    assert figures.region_share == 0.5
    result[19, 29, 2] = 93
    assert measure(original, result, mask).max_difference_outside == 7
    assert measure(result, original, mask).max_difference_outside == 7


def test_measuring_the_largest_difference_of_a_large_image_does_not_overflow() -> None:
    black, white = np.zeros((3000, 3000, 3), np.uint8), np.full((3000, 3000, 3), 255, np.uint8)
    assert measure(black, white, whole_image(3000, 3000)).mean_difference_inside == 255


def test_an_empty_region_changes_nothing() -> None:
    original = noise(40, 50)
    mask = resolve(RegionSpec((BoxPart(0, 0, 3, 3),), grow_px=-5), 50, 40)
    frame = central_frame(50, 40)
    np.testing.assert_array_equal(add_change(original, change_of(8), frame, mask), original)
    np.testing.assert_array_equal(blend(original, 255 - original, mask), original)
    figures = measure(original, original, mask)
    assert (figures.mean_difference_inside, figures.region_share) == (0, 0)


def test_the_original_is_never_written_to() -> None:
    original = noise(60, 60)
    kept = original.copy()
    original.flags.writeable = False
    mask = whole_image(60, 60)
    change = change_of(16)
    saved = change.copy()
    add_change(original, change, central_frame(60, 60), mask)
    blend(original, 255 - original, mask)
    np.testing.assert_array_equal(original, kept)
    np.testing.assert_array_equal(change, saved)
    assert (mask.alpha == 1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_changes_that_are_not_finite_are_refused(bad: float) -> None:
    change = change_of(8)
    change[3, 3, 0] = bad
    with pytest.raises(ValueError, match="not finite"):
        add_change(noise(20, 20), change, central_frame(20, 20), whole_image(20, 20))


def test_shapes_that_do_not_fit_are_refused() -> None:
    original, mask = noise(20, 30), whole_image(30, 20)
    frame = central_frame(30, 20)
    with pytest.raises(ValueError, match="mask"):
        add_change(original, change_of(8), frame, whole_image(20, 30))
    with pytest.raises(ValueError, match="shape"):
        add_change(original, change_of(8)[:4], frame, mask)
    with pytest.raises(ValueError, match="replacement"):
        blend(original, noise(30, 20), mask)
    with pytest.raises(ValueError, match="result"):
        measure(original, noise(30, 20), mask)
