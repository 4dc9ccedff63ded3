"""Tilings of any image: full cover, equal tiles, windows that sum to one, joins without loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velatura.server.imaging.tiling import Tile, join, plan, windows


@st.composite
def plans(draw: st.DrawFn, longest: int = 400) -> tuple[int, int, int, int, int]:
    multiple = draw(st.sampled_from([1, 1, 4, 8]))
    tile = draw(st.integers(1, 25)) * multiple
    overlap = draw(st.integers(0, tile - 1))
    # Overlaps close to the tile's side make thousands of tiles: true, and slow to look at.
    overlap = min(overlap, tile * 3 // 4)
    return draw(st.integers(1, longest)), draw(st.integers(1, longest)), tile, overlap, multiple


@settings(max_examples=200, deadline=None)
@given(plans())
def test_tiles_cover_the_image_and_are_alike(case: tuple[int, int, int, int, int]) -> None:
    height, width, tile, overlap, multiple = case
    tiles = plan(height, width, tile, overlap, multiple)
    assert len({(t.width, t.height) for t in tiles}) == 1
    assert max(tiles[0].width, tiles[0].height) <= tile
    seen = np.zeros((height, width), bool)
    for t in tiles:
        assert t.x >= 0
        assert t.y >= 0
        assert t.cut(seen).shape == (t.height, t.width)
        t.cut(seen)[:] = True
    assert seen.all()
    for starts, size, length in (
        (sorted({t.x for t in tiles}), tiles[0].width, width),
        (sorted({t.y for t in tiles}), tiles[0].height, height),
    ):
        assert (len(starts) == 1) == (length <= tile)
        assert all(a + size - b >= overlap for a, b in itertools.pairwise(starts))
        assert len(starts) == 1 or size % multiple == 0
    assert tiles == sorted(tiles, key=lambda t: (t.y, t.x))


@settings(max_examples=200, deadline=None)
@given(plans())
def test_windows_sum_to_one_exactly(case: tuple[int, int, int, int, int]) -> None:
    height, width, tile, overlap, multiple = case
    tiles = plan(height, width, tile, overlap, multiple)
    across = windows(sorted({t.x for t in tiles}), tiles[0].width)
    down = windows(sorted({t.y for t in tiles}), tiles[0].height)
    total = np.zeros((height, width), np.float32)
    for t in tiles:
        window = down[t.y][:, None] * across[t.x]
        assert window.dtype == np.float32
        assert window.min() >= 0
        t.cut(total)[:] += window
    assert (total == 1).all()


@settings(max_examples=100, deadline=None)
@given(plans(longest=150), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_joining_untouched_tiles_loses_nothing(
    case: tuple[int, int, int, int, int], channels: int, seed: int
) -> None:
    height, width, *rest = case
    tiles = plan(height, width, *rest)
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    joined = join(tiles, [t.cut(samples) for t in tiles])
    assert joined.dtype == np.uint8
    np.testing.assert_array_equal(joined, samples)
    floats = rng.normal(size=(height, width, channels)).astype(np.float32)
    joined_floats = join(tiles, [t.cut(floats) for t in tiles])
    assert joined_floats.dtype == np.float32
    np.testing.assert_allclose(joined_floats, floats, rtol=1e-5, atol=1e-6)


def test_neighbours_that_differ_fade_into_each_other() -> None:
    tiles = plan(10, 100, 60, 20)
    assert tiles == [Tile(0, 0, 60, 10), Tile(40, 0, 60, 10)]
    dark, light = np.zeros((10, 60, 1), np.uint8), np.full((10, 60, 1), 200, np.uint8)
    row = join(tiles, [dark, light])[5, :, 0].astype(int)
    assert (row[:40] == 0).all()
    assert (row[60:] == 200).all()
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() <= 16  # 200 over 20 pixels, half as steep again in the middle


def test_plans_that_cannot_be() -> None:
    for arguments in ((0, 5, 4, 1), (5, 5, 4, 4), (5, 5, 4, -1), (5, 5, 0, 0), (5, 5, 6, 1, 4)):
        with pytest.raises(ValueError, match=r"needed|fit|multiple"):
            plan(*arguments)


def test_images_that_do_not_fit_their_tiles() -> None:
    tiles = plan(10, 100, 60, 20)
    good = np.zeros((10, 60, 3), np.uint8)
    for images in (
        [good],
        [good, good[:5]],
        [good, good[..., :1]],
        [good, good.astype(np.float32)],
    ):
        with pytest.raises(ValueError, match=r"picture|fit|differ"):
            join(tiles, images)
