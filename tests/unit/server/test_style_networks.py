"""One style network on images of any size, with a network that normalises like the real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from velatura.server.pipelines import style_networks
from velatura.server.pipelines.style_networks import SMALLEST, STRIDE, padding, paint_whole
from velatura.server.pipelines.workers import Workers

from .fakes import FakeEngine, entry, job_on

MODEL = entry("style")


def normalising(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Each channel to mean 0.5 and deviation 0.2 over the whole image, as instance normalisation
    does."""
    image = inputs["image"]
    mean = image.mean(axis=(2, 3), keepdims=True)
    deviation = image.std(axis=(2, 3), keepdims=True) + 1e-6
    return {"image_out": ((image - mean) / deviation * 0.2 + 0.5).astype(np.float32)}


def identity(inputs: Mapping[str, Any]) -> dict[str, Any]:
    assert inputs["image"].shape[2] % STRIDE == 0
    assert inputs["image"].shape[3] % STRIDE == 0
    assert min(inputs["image"].shape[2:]) >= SMALLEST
    return {"image_out": inputs["image"]}


def ramp(height: int, width: int) -> np.ndarray:  # type: ignore[type-arg]
    """Dark on the left, bright on the right, with fine structure."""
    across = np.linspace(20, 230, width)
    grain = np.random.default_rng(0).integers(-15, 16, (height, width, 3))
    return np.clip(across[None, :, None] + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (16, 16), (17, 19), (100, 33)])
async def test_padding_is_cut_off_again(workers: Workers, size: tuple[int, int]) -> None:
    image = ramp(*size)
    painted, tiles = await paint_whole(
        job_on(FakeEngine({"style": identity}), workers), MODEL, image, {}
    )
    assert np.array_equal(painted, image)
    assert tiles == 1


@pytest.mark.parametrize(("extent", "more"), [(1, 15), (16, 0), (17, 3), (20, 0), (767, 1)])
def test_padding_reaches_the_next_extent_that_fits(extent: int, more: int) -> None:
    assert padding(extent) == more


@pytest.mark.parametrize("size", [(1, 1), (40, 70), (900, 60)])
async def test_a_networks_own_multiple_is_kept(workers: Workers, size: tuple[int, int]) -> None:
    def picky(inputs: Mapping[str, Any]) -> dict[str, Any]:
        assert inputs["image"].shape[2] % 28 == 0
        assert inputs["image"].shape[3] % 28 == 0
        return {"image_out": inputs["image"]}

    model = entry("style")
    model.inputs[0].multiple_of = 14
    image = np.full((*size, 3), 90, np.uint8)
    painted, tiles = await paint_whole(
        job_on(FakeEngine({"style": picky}), workers), model, image, {}
    )
    assert np.array_equal(painted, image)
    assert tiles == (2 if size[0] > style_networks.TILE else 1)


async def test_tiles_join_to_the_image_and_conditions_go_to_each(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style_networks, "TILE", 64)
    monkeypatch.setattr(style_networks, "OVERLAP", 16)
    engine = FakeEngine({"style": identity})
    image = ramp(100, 203)
    conditions = {"style_code": np.arange(5, dtype=np.float32)[None]}
    painted, tiles = await paint_whole(job_on(engine, workers), MODEL, image, conditions)
    # What is left of a difference is the tone of the scaled-down pass, within rounding.
    assert np.abs(painted.astype(int) - image).max() <= 3
    assert tiles == 8
    runs = engine.ran("style")
    assert sum(len(inputs["image"]) for inputs in runs) == tiles + 1
    for inputs in runs:
        assert (inputs["style_code"] == conditions["style_code"]).all()
        assert len(inputs["style_code"]) == len(inputs["image"])


async def test_tiles_take_the_whole_images_tone(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tile alone would be normalised to the same grey; the whole image runs from dark to
    bright."""
    image = ramp(96, 384)
    job = job_on(FakeEngine({"style": normalising}), workers)
    whole, _ = await paint_whole(job, MODEL, image, {})
    monkeypatch.setattr(style_networks, "TILE", 96)
    monkeypatch.setattr(style_networks, "OVERLAP", 32)
    monkeypatch.setattr(style_networks, "TONE_CELL", 32)
    tiled, tiles = await paint_whole(job, MODEL, image, {})
    assert tiles > 3

    def tone(painted: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return painted.reshape(96, 12, 32, 3).mean(axis=(0, 2))  # [12 columns, 3]

    assert np.abs(tone(tiled) - tone(whole)).max() < 10
    join = style_networks.join
    monkeypatch.setattr(style_networks, "_join", lambda tiles, pieces, *_: join(tiles, pieces))
    uncorrected, _ = await paint_whole(job, MODEL, image, {})
    assert np.abs(tone(uncorrected) - tone(whole)).max() > 30, "the correction is needed"
