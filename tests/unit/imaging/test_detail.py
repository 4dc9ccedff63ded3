"""A change made at a network's size, carried over to more pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from velatura.server.imaging.compositing import add_change
from velatura.server.imaging.detail import carry_change
from velatura.server.imaging.frames import central_frame, crop_to_network
from velatura.server.imaging.picture import F32, U8
from velatura.server.imaging.regions import whole_image

SIZE, SMALL = 512, 128
SKIN, MOUTH, LIPSTICK = (237, 185, 138), (60, 30, 40), (200, 40, 90)


def face(size: int, mouth: tuple[int, int, int] | None) -> U8:
    """A flat face with a mouth of that colour, anti-aliased."""
    image = np.full((size * 4, size * 4, 3), SKIN, np.uint8)
    if mouth is not None:
        centre = (size * 2, int(size * 2.5))
        cv2.ellipse(image, centre, (int(size * 0.6), int(size * 0.2)), 0, 0, 360, mouth, -1)
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def view_of(image: U8, size: int) -> F32:
    frame = central_frame(*image.shape[1::-1])
    planes = crop_to_network(image, frame, size, 0.0, 255.0)[0]
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def carried(original: U8, before: F32, after: F32) -> U8:
    height, width = original.shape[:2]
    change = carry_change(view_of(original, before.shape[0]), before, after)
    frame, mask = central_frame(width, height), whole_image(width, height)
    return add_change(original, change.offset, frame, mask, gain=change.gain)


def upsampled(original: U8, before: F32, after: F32) -> U8:
    height, width = original.shape[:2]
    return add_change(
        original, after - before, central_frame(width, height), whole_image(width, height)
    )


def error(result: U8, truth: U8) -> float:
    return float(np.abs(result.astype(int) - truth).max(axis=2).astype(float).mean())


def test_no_change_leaves_every_byte() -> None:
    rng = np.random.default_rng(0)
    original = rng.integers(0, 256, (90, 90, 3), np.uint8)
    same = rng.uniform(0, 255, (32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(carried(original, same, same), original)


def test_at_the_networks_own_size_the_change_is_exact_where_the_fit_is_good() -> None:
    original, wanted = face(SMALL, MOUTH), face(SMALL, LIPSTICK)
    result = carried(original, original.astype(np.float32), wanted.astype(np.float32))
    assert np.abs(result.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("mouth", [None, LIPSTICK], ids=["removed", "dyed"])
def test_edges_are_the_images_own(mouth: tuple[int, int, int] | None) -> None:
    original, wanted = face(SIZE, MOUTH), face(SIZE, mouth)
    before, after = view_of(original, SMALL), view_of(wanted, SMALL)
    plain = error(upsampled(original, before, after), wanted)
    assert error(carried(original, before, after), wanted) < 0.5 * plain


def test_what_a_blurred_network_redraws_keeps_no_outline_of_the_old() -> None:
    """The network's own picture of the mouth is soft: its difference cannot cancel a sharp one."""
    original, wanted = face(SIZE, MOUTH), face(SIZE, None)
    before = np.asarray(cv2.GaussianBlur(view_of(original, SMALL), (0, 0), 1.5), np.float32)
    after = view_of(wanted, SMALL)
    worst_plain = np.abs(upsampled(original, before, after).astype(int) - wanted).max()
    worst = np.abs(carried(original, before, after).astype(int) - wanted).max()
    assert worst < 0.6 * worst_plain
