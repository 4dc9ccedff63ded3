"""Locality: whatever region, frame and change, nothing outside changes by a single bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from velatura.server.imaging.compositing import add_change, blend, measure
from velatura.server.imaging.frames import Frame, cover_with_frames
from velatura.server.imaging.regions import BoxPart, Mask, MaskPart, RegionSpec, resolve

SIDES = st.integers(1, 200)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def masked(draw: st.DrawFn) -> tuple[np.ndarray, Mask, np.random.Generator]:
    width, height = draw(SIDES), draw(SIDES)
    rng = np.random.default_rng(draw(SEEDS))
    original = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if draw(st.booleans()):
        part: BoxPart | MaskPart = BoxPart(
            draw(st.integers(0, width - 1)),
            draw(st.integers(0, height - 1)),
            draw(SIDES),
            draw(SIDES),
        )
    else:
        share = draw(st.floats(0, 1))
        part = MaskPart((rng.random((height, width)) < share).astype(np.uint8) * 255)
    spec = RegionSpec(
        (part,),
        grow_px=draw(st.integers(-20, 20)),
        feather_px=draw(st.integers(0, 60)),
        invert=draw(st.booleans()),
    )
    return original, resolve(spec, width, height), rng


@settings(max_examples=200, deadline=None)
@given(masked(), st.integers(1, 40), st.floats(0, 1e6, width=32), st.data())
def test_a_change_stays_inside(
    case: tuple[np.ndarray, Mask, np.random.Generator], side: int, scale: float, data: st.DataObject
) -> None:
    original, mask, rng = case
    height, width = original.shape[:2]
    frames = st.sampled_from(cover_with_frames(width, height)) | st.builds(
        Frame, st.integers(-50, 220), st.integers(-50, 220), st.integers(1, 250)
    )
    frame = data.draw(frames)
    change = rng.normal(0, 1, (side, side, 3)).astype(np.float32) * np.float32(scale)
    result = add_change(original, change, frame, mask)
    assert result.shape == original.shape
    assert result.dtype == np.uint8
    assert result[~mask.inside].tobytes() == original[~mask.inside].tobytes()
    y, x = np.mgrid[:height, :width]
    unseen = (x < frame.x) | (x >= frame.x + frame.size)
    unseen |= (y < frame.y) | (y >= frame.y + frame.size)
    assert result[unseen].tobytes() == original[unseen].tobytes()
    assert measure(original, result, mask).max_difference_outside == 0
    lowest = np.clip(original + np.minimum(np.floor(change.min(axis=(0, 1))), 0), 0, 255)
    highest = np.clip(original + np.maximum(np.ceil(change.max(axis=(0, 1))), 0), 0, 255)
    assert (result >= lowest).all()
    assert (result <= highest).all()


@settings(max_examples=150, deadline=None)
@given(masked())
def test_a_replacement_stays_inside(
    case: tuple[np.ndarray, Mask, np.random.Generator],
) -> None:
    original, mask, rng = case
    replaced = rng.integers(0, 256, original.shape, dtype=np.uint8)
    result = blend(original, replaced, mask)
    assert result[~mask.inside].tobytes() == original[~mask.inside].tobytes()
    full = mask.alpha == 1
    assert result[full].tobytes() == replaced[full].tobytes()
    figures = measure(original, result, mask)
    assert figures.max_difference_outside == 0
    inside = np.abs(original.astype(int) - result)[mask.inside]
    assert np.isclose(figures.mean_difference_inside, inside.mean() if inside.size else 0)
    # A caller must be able to trust the figure, so it must see a defect wherever there is one.
    outside = np.argwhere(~mask.inside)
    if len(outside):
        row, column = outside[rng.integers(len(outside))]
        result[row, column, 1] ^= 64
        assert measure(original, result, mask).max_difference_outside == 64
