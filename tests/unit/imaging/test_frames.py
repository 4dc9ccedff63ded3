"""Frames: where they lie, what networks see through them, and how their logits come back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from velatura.server.imaging.errors import ImageError, Reason
from velatura.server.imaging.frames import (
    MOST_FRAMES,
    Frame,
    blend_logits,
    central_frame,
    cover_with_frames,
    crop_to_network,
    frame_of_box,
    to_pixels,
    to_planes,
    to_samples,
)

SIZES = [
    (1, 1),
    (5, 1),
    (1, 9),
    (100, 100),
    (300, 200),
    (200, 301),
    (1500, 1000),
    (16_384, 1),
    (3, 999),
]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_central_frame_is_the_largest_square(width: int, height: int) -> None:
    frame = central_frame(width, height)
    assert frame.size == min(width, height)
    assert 0 <= frame.x <= width - frame.size
    assert 0 <= frame.y <= height - frame.size
    assert abs(2 * frame.x + frame.size - width) <= 1
    assert abs(2 * frame.y + frame.size - height) <= 1


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_frames_cover_every_pixel(width: int, height: int) -> None:
    frames = cover_with_frames(width, height)
    assert 1 <= len(frames) <= MOST_FRAMES
    seen = np.zeros((height, width), bool)
    for frame in frames:
        seen[max(frame.y, 0) : frame.y + frame.size, max(frame.x, 0) : frame.x + frame.size] = True
    assert seen.all()
    for before, after in itertools.pairwise(frames):
        moved = max(after.x - before.x, after.y - before.y)
        assert moved <= 0.75 * frames[0].size + 1
    if width == height:
        assert frames == [Frame(0, 0, width)]


def test_a_frame_around_a_box() -> None:
    assert frame_of_box((10, 20, 30, 40), 200, 100) == Frame(5, 20, 40)
    assert frame_of_box((-10, -10, 20, 30), 200, 100) == Frame(0, 0, 20)
    assert frame_of_box((150, 0, 100, 100), 200, 100) == Frame(100, 0, 100)
    assert frame_of_box((0, 0, 200, 10), 200, 100) == Frame(50, 0, 100)
    assert frame_of_box((0, 0, 1, 1), 1, 1) == Frame(0, 0, 1)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((200, 0, 5, 5), Reason.OUTSIDE_IMAGE),
        ((-5, 0, 5, 5), Reason.OUTSIDE_IMAGE),
        ((0, 0, 0, 5), Reason.OUT_OF_RANGE),
    ],
)
def test_frames_that_show_nothing(box: tuple[int, int, int, int], reason: Reason) -> None:
    with pytest.raises(ImageError) as caught:
        frame_of_box(box, 200, 100)
    assert (caught.value.reason, caught.value.field) == (reason, "frame")


def test_samples_are_mapped_to_the_networks_range_and_back() -> None:
    rgb = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for lo, hi in ((-1, 1), (0, 1)):
        planes = crop_to_network(rgb, Frame(0, 0, 16), 16, lo, hi)
        assert planes.shape == (1, 3, 16, 16)
        assert planes.dtype == np.float32
        assert planes.flags.c_contiguous
        assert planes.min() == pytest.approx(lo, abs=1e-6)
        assert planes.max() == pytest.approx(hi, abs=1e-6)
        np.testing.assert_array_equal(to_samples(planes[0], lo, hi), rgb)
    assert to_samples(np.full((3, 1, 1), 7, np.float32), -1, 1).max() == 255
    np.testing.assert_array_equal(to_planes(rgb, 0, 255)[0, 1], rgb[..., 1])


def test_shrinking_averages() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[::2, ::2] = 255  # a pattern that sampling would miss or take for white
    planes = crop_to_network(rgb, central_frame(64, 64), 8, 0, 1)
    np.testing.assert_allclose(planes, 0.25, atol=0.003)


def test_one_pixel_and_overhanging_frames() -> None:
    pixel = np.array([[[0, 128, 255]]], np.uint8)
    planes = crop_to_network(pixel, central_frame(1, 1), 128, -1, 1)
    np.testing.assert_allclose(planes[0, :, 5, 7], (-1, 0.004, 1), atol=1e-3)
    line = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (1, 1, 3))  # [1, 100, 3]
    planes = crop_to_network(line, Frame(10, -9, 20), 20, 0, 255)
    np.testing.assert_allclose(planes[0, 0], np.tile(np.arange(10, 30), (20, 1)), atol=1e-3)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[labels].transpose(2, 0, 1) * 8  # [C, S, S]


def test_logits_come_back_to_the_image() -> None:
    labels = np.kron(np.array([[0, 1], [2, 3]]), np.ones((16, 16), int))  # [32, 32]
    whole = blend_logits([(Frame(0, 0, 400), one_hot(labels, 4))], 400, 400)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, np.kron([[0, 1], [2, 3]], np.ones((200, 200), int)))
    same = blend_logits([(Frame(0, 0, 32), one_hot(labels, 4))], 32, 32)
    np.testing.assert_array_equal(same, labels)
    small = blend_logits([(Frame(0, 0, 8), one_hot(labels, 4))], 8, 8)
    np.testing.assert_array_equal(small, labels[::4, ::4])


def test_many_frames_agree_with_the_picture_they_show() -> None:
    width, height, side = 1400, 300, 64
    truth = (np.arange(width) // 100 % 5)[None].repeat(height, 0)
    parts = []
    for frame in cover_with_frames(width, height):
        centres = frame.x + (np.arange(side) + 0.5) * frame.size / side
        shown = truth[0, centres.astype(int)][None].repeat(side, 0)
        parts.append((frame, one_hot(shown, 5)))
    assert len(parts) > 4
    labels = blend_logits(parts, width, height)
    assert (labels == truth).mean() > 0.97
    np.testing.assert_array_equal(labels[:, 50::100], truth[:, 50::100])


def test_the_frame_whose_centre_is_nearer_wins() -> None:
    left = np.zeros((2, 4, 4), np.float32)
    left[0] = 1
    labels = blend_logits([(Frame(0, 0, 100), left), (Frame(50, 0, 100), left[::-1])], 150, 100)
    assert (labels[:, :74] == 0).all()
    assert (labels[:, 76:] == 1).all()


def test_logits_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="one or more frames"):
        blend_logits([], 10, 10)
    three, four = np.zeros((3, 4, 4), np.float32), np.zeros((4, 4, 4), np.float32)
    with pytest.raises(ValueError, match="same classes"):
        blend_logits([(Frame(0, 0, 10), three), (Frame(0, 0, 10), four)], 10, 10)


def test_planes_become_pixels_without_being_changed() -> None:
    planes = np.linspace(-1.5, 1.5, 3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    planes.flags.writeable = False  # as what is kept between requests is
    pixels = to_pixels(planes)
    assert pixels.shape == (4, 5, 3)
    assert pixels.dtype == np.float32
    expected = (np.clip(planes, -1, 1) * 127.5 + 127.5).transpose(1, 2, 0)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)
