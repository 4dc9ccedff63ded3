"""Regions of any shape: alpha is 0 exactly outside, fades inward, and distances are true."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from velatura.server.imaging.regions import (
    BoxPart,
    ClassPart,
    ClickPart,
    MaskPart,
    RegionSpec,
    resolve,
)

CLASSES = ("background", "skin", "hair")


@st.composite
def cases(draw: st.DrawFn, longest: int = 40) -> tuple[RegionSpec, int, int, np.ndarray]:
    width, height = draw(st.integers(1, longest)), draw(st.integers(1, longest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    blocks = rng.integers(0, 3, (height // 5 + 1, width // 5 + 1), dtype=np.uint8)
    labels = np.kron(blocks, np.ones((5, 5), np.uint8))[:height, :width]
    subtract = st.booleans()
    boxes = st.builds(
        BoxPart,
        x=st.integers(-5, width - 1).filter(lambda x: x > -5),
        y=st.integers(-5, height - 1).filter(lambda y: y > -5),
        width=st.integers(5, longest),
        height=st.integers(5, longest),
        subtract=subtract,
    )
    masks = st.floats(0, 1).map(
        lambda share: MaskPart((rng.random((height, width)) < share).astype(np.uint8) * 255)
    )
    clicks = st.builds(
        ClickPart, st.integers(0, width - 1), st.integers(0, height - 1), subtract=subtract
    )
    classes = st.builds(ClassPart, st.sampled_from(CLASSES), subtract=subtract)
    spec = RegionSpec(
        parts=tuple(draw(st.lists(boxes | masks | clicks | classes, min_size=1, max_size=4))),
        grow_px=draw(st.integers(-6, 6)),
        feather_px=draw(st.integers(0, 15)),
        invert=draw(st.booleans()),
    )
    return spec, width, height, labels


def squared_distances(inside: np.ndarray) -> np.ndarray:
    """Squared distance from each pixel to the nearest one that is not inside, by looking at all."""
    height, width = inside.shape
    y, x = np.mgrid[:height, :width]
    outside = np.argwhere(~inside)
    if len(outside) == 0:
        return np.full(inside.shape, 1 << 40)
    dy = y[..., None] - outside[:, 0]
    dx = x[..., None] - outside[:, 1]
    return (dy * dy + dx * dx).min(axis=-1)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_alpha_is_zero_exactly_outside(case: tuple[RegionSpec, int, int, np.ndarray]) -> None:
    spec, width, height, labels = case
    mask = resolve(spec, width, height, labels, CLASSES)
    assert mask.inside.shape == mask.alpha.shape == (height, width)
    assert mask.alpha.dtype == np.float32
    np.testing.assert_array_equal(mask.alpha > 0, mask.inside)
    assert mask.alpha.max(initial=0) <= 1
    assert mask.share == mask.inside.mean()


@settings(max_examples=100, deadline=None)
@given(cases(longest=24))
def test_feathering_is_monotone_and_inside(
    case: tuple[RegionSpec, int, int, np.ndarray],
) -> None:
    spec, width, height, labels = case
    mask = resolve(spec, width, height, labels, CLASSES)
    distance = np.sqrt(squared_distances(mask.inside))
    order = np.argsort(distance, axis=None, kind="stable")
    assert (np.diff(mask.alpha.ravel()[order]) >= -1e-6).all()
    deep = distance >= spec.feather_px + 0.5
    np.testing.assert_array_equal(mask.alpha[deep & mask.inside], 1)
    if spec.feather_px > 1:
        rim = distance == 1
        assert (mask.alpha[rim] < 1).all()


@settings(max_examples=100, deadline=None)
@given(cases(longest=24), st.integers(1, 8))
def test_growing_and_shrinking_are_exact(
    case: tuple[RegionSpec, int, int, np.ndarray], radius: int
) -> None:
    spec, width, height, labels = case
    plain = resolve(RegionSpec(spec.parts), width, height, labels, CLASSES).inside
    grown = resolve(RegionSpec(spec.parts, grow_px=radius), width, height, labels, CLASSES).inside
    shrunk = resolve(RegionSpec(spec.parts, grow_px=-radius), width, height, labels, CLASSES).inside
    np.testing.assert_array_equal(grown, squared_distances(~plain) <= radius * radius)
    np.testing.assert_array_equal(shrunk, squared_distances(plain) > radius * radius)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_inverting_takes_exactly_the_rest(
    case: tuple[RegionSpec, int, int, np.ndarray],
) -> None:
    spec, width, height, labels = case
    one = resolve(RegionSpec(spec.parts, spec.grow_px), width, height, labels, CLASSES)
    other = resolve(
        RegionSpec(spec.parts, spec.grow_px, invert=True), width, height, labels, CLASSES
    )
    np.testing.assert_array_equal(one.inside, ~other.inside)
