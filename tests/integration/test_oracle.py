"""The oracle of regions itself, on figures small enough to count by hand."""

from __future__ import annotations

import numpy as np

from velatura.client import Box, Click, Region, Subtract

from .oracle import connected, inside_of, widened


def no_labels() -> np.ndarray:  # type: ignore[type-arg]
    raise AssertionError("boxes need no labels")


def test_a_pixel_widens_to_a_disc() -> None:
    dot = np.zeros((7, 7), np.bool_)
    dot[3, 3] = True
    disc = widened(dot, 2)
    assert disc.astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]


def test_corners_touch_and_gaps_part() -> None:
    labels = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]], np.uint8)
    assert connected(labels, 0, 0).astype(int).tolist() == [
        [1, 0, 1],
        [0, 1, 0],
        [0, 0, 0],
        [0, 0, 0],
    ]
    assert connected(labels, 1, 3).sum() == 2


def test_parts_apply_in_order_then_grow_then_invert() -> None:
    region = Region(Box(-2, 1, 4, 2), Subtract(Box(1, 0, 1, 9)), Box(3, 3, 9, 9))
    assert inside_of(region, (5, 4), no_labels, ()).astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1],
    ]
    shrunk = Region(Box(0, 0, 4, 4), grow_px=-1, invert=True)
    # The image's border is no edge: the box touches it on three sides and shrinks on the fourth.
    assert inside_of(shrunk, (5, 4), no_labels, ()).astype(int).tolist() == [[0, 0, 0, 1, 1]] * 4


def test_a_click_and_a_class_come_from_the_labels() -> None:
    labels = np.array([[2, 2, 0, 2]], np.uint8)
    assert inside_of(Region("hair"), (4, 1), lambda: labels, ["a", "b", "hair"]).sum() == 3
    assert inside_of(Region(Click(0, 0)), (4, 1), lambda: labels, []).sum() == 2
