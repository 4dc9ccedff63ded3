"""Regions: parts in order, distances, borders, and the errors a caller can cause."""

from __future__ import annotations

import numpy as np
import pytest

from velatura.server.imaging.errors import Reason, RegionError
from velatura.server.imaging.regions import (
    BoxPart,
    ClassPart,
    ClickPart,
    MaskPart,
    RegionPart,
    RegionSpec,
    check,
    needs_segmenter,
    resolve,
)

CLASSES = ("background", "skin", "hair")
LABELS = np.array(
    [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 2, 0],
        [0, 1, 0, 0, 0, 2],
        [0, 0, 0, 0, 0, 0],
        [2, 2, 0, 0, 1, 1],
    ],
    np.uint8,
)


def resolved(*parts: RegionPart, **options: int) -> np.ndarray:
    spec = RegionSpec(parts, **options)
    return resolve(spec, LABELS.shape[1], LABELS.shape[0], LABELS, CLASSES).inside


def test_no_region_is_the_whole_image() -> None:
    mask = resolve(None, 3, 2)
    assert mask.inside.all()
    assert (mask.alpha == 1).all()
    assert mask.share == 1
    assert mask.bounds == (0, 0, 3, 2)


def test_classes_and_clicks() -> None:
    np.testing.assert_array_equal(resolved(ClassPart("hair")), LABELS == 2)
    clicked = resolved(ClickPart(4, 1))  # diagonal neighbours belong together
    assert np.argwhere(clicked).tolist() == [[1, 4], [2, 5]]
    assert resolved(ClickPart(1, 1)).sum() == 3


def test_parts_apply_in_order() -> None:
    whole, middle = BoxPart(0, 0, 6, 5), BoxPart(2, 1, 2, 2, subtract=True)
    assert resolved(whole, middle).sum() == 26
    assert resolved(middle, whole).sum() == 30
    assert resolved(whole, ClassPart("background", subtract=True)).sum() == (LABELS > 0).sum()
    assert resolved(whole, ClickPart(1, 1, subtract=True)).sum() == 27


def test_boxes_are_cut_at_the_image() -> None:
    inside = resolved(BoxPart(-3, -2, 5, 4))
    assert np.argwhere(inside).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert resolved(BoxPart(4, 3, 1 << 31, 1 << 31)).sum() == 4


def test_mask_samples_of_128_and_more_are_inside() -> None:
    samples = np.zeros(LABELS.shape, np.uint8)
    samples[0, :3] = 127, 128, 255
    assert np.argwhere(resolved(MaskPart(samples))).tolist() == [[0, 1], [0, 2]]


def test_growing_and_shrinking_are_round() -> None:
    point = RegionSpec((BoxPart(10, 10, 1, 1),), grow_px=5)
    inside = resolve(point, 21, 21).inside
    y, x = np.mgrid[:21, :21]
    np.testing.assert_array_equal(inside, (x - 10) ** 2 + (y - 10) ** 2 <= 25)
    hole = RegionSpec((BoxPart(0, 0, 21, 21), BoxPart(10, 10, 1, 1, subtract=True)), grow_px=-5)
    np.testing.assert_array_equal(resolve(hole, 21, 21).inside, ~inside)


@pytest.mark.parametrize("radius", [1, 5, 65, 325, 512])
def test_whole_distances_are_met_exactly(radius: int) -> None:
    # 65² = 16² + 63² and 325² = 36² + 323²: distances on the circle that no axis gives.
    spec = RegionSpec((BoxPart(0, 0, 1, 1),), grow_px=radius)
    inside = resolve(spec, 520, 520).inside
    y, x = np.mgrid[:520, :520]
    np.testing.assert_array_equal(inside, x * x + y * y <= radius * radius)


def test_the_border_is_no_edge() -> None:
    half = (BoxPart(0, 0, 50, 40),)
    mask = resolve(RegionSpec(half, feather_px=10), 100, 40)
    assert (mask.alpha[:, :40] == 1).all()  # up to three borders of the image
    assert (np.diff(mask.alpha[:, 39:51], axis=1) < 0).all()
    shrunk = resolve(RegionSpec(half, grow_px=-10), 100, 40)
    assert shrunk.bounds == (0, 0, 40, 40)
    whole = resolve(RegionSpec((BoxPart(0, 0, 100, 40),), grow_px=-30, feather_px=30), 100, 40)
    assert (whole.alpha == 1).all()


def test_inverting_comes_after_growing_and_before_feathering() -> None:
    box = (BoxPart(20, 20, 10, 10),)
    mask = resolve(RegionSpec(box, grow_px=5, feather_px=8, invert=True), 50, 50)
    grown = resolve(RegionSpec(box, grow_px=5), 50, 50)
    np.testing.assert_array_equal(mask.inside, ~grown.inside)
    assert mask.alpha[25, 15] == 0  # inside the grown box
    assert mask.alpha[25, 14] > 0
    assert 0 < mask.alpha[25, 10] < 1
    assert mask.alpha[25, 2] == 1


def test_a_region_may_be_empty() -> None:
    mask = resolve(RegionSpec((BoxPart(5, 5, 4, 4),), grow_px=-8, feather_px=4), 20, 20)
    assert mask.share == 0
    assert mask.bounds == (0, 0, 0, 0)
    assert not mask.alpha.any()
    assert resolved(ClassPart("skin"), ClassPart("skin", subtract=True)).sum() == 0


def test_only_classes_and_clicks_need_the_segmenter() -> None:
    assert not needs_segmenter(None)
    assert not needs_segmenter(RegionSpec((BoxPart(0, 0, 1, 1), MaskPart(LABELS))))
    assert needs_segmenter(RegionSpec((BoxPart(0, 0, 1, 1), ClassPart("skin"))))
    assert needs_segmenter(RegionSpec((ClickPart(0, 0),)))
    with pytest.raises(ValueError, match="labels of shape"):
        resolve(RegionSpec((ClickPart(0, 0),)), 6, 5)


@pytest.mark.parametrize(
    ("part", "reason", "field", "words"),
    [
        (ClassPart("beard"), Reason.UNKNOWN_CLASS, "class_name", "background, skin, hair"),
        (MaskPart(np.zeros((6, 5), np.uint8)), Reason.WRONG_SIZE, "mask", "5×6"),
        (BoxPart(6, 0, 1, 1), Reason.OUTSIDE_IMAGE, "box", "6×5"),
        (BoxPart(-2, 0, 2, 2), Reason.OUTSIDE_IMAGE, "box", "outside"),
        (BoxPart(0, 0, 0, 2), Reason.OUT_OF_RANGE, "box", "at least 1"),
        (ClickPart(6, 0), Reason.OUTSIDE_IMAGE, "click", "x 0..5 and y 0..4"),
        (ClickPart(0, 5), Reason.OUTSIDE_IMAGE, "click", "x 0..5 and y 0..4"),
    ],
)
def test_parts_that_do_not_fit(part: RegionPart, reason: Reason, field: str, words: str) -> None:
    spec = RegionSpec((BoxPart(0, 0, 2, 2), part))
    with pytest.raises(RegionError) as caught:
        check(spec, 6, 5, CLASSES, "request.region")
    assert caught.value.reason is reason
    assert caught.value.field == f"request.region.parts[1].{field}"
    assert words in str(caught.value)
    with pytest.raises(RegionError):
        resolve(spec, 6, 5, LABELS, CLASSES)


def test_regions_that_make_no_sense() -> None:
    with pytest.raises(RegionError) as caught:
        resolve(RegionSpec(()), 6, 5)
    assert caught.value.field == "region.parts"
    with pytest.raises(RegionError) as caught:
        resolve(RegionSpec((BoxPart(0, 0, 1, 1),), feather_px=-1), 6, 5)
    assert caught.value.field == "region.feather_px"
