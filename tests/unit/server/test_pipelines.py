"""How the pipelines use the engine: what runs together, what runs not at all, what stops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.errors import DeviceFailed, FailureKind
from velatura.server.imaging.errors import RegionError
from velatura.server.imaging.frames import central_frame
from velatura.server.imaging.picture import Picture
from velatura.server.imaging.regions import BoxPart, ClassPart, RegionSpec
from velatura.server.pipelines.edit import EditOrder, edit
from velatura.server.pipelines.encode import encode
from velatura.server.pipelines.errors import UnknownThing, Unsupported
from velatura.server.pipelines.generate import SampleOrder, class_weights, generate, latent_of_seed
from velatura.server.pipelines.latents import Layers, OffsetStep
from velatura.server.pipelines.stylize import PictureGroup, PresetGroup, StyleOrder, stylise
from velatura.server.pipelines.workers import Workers
from velatura.v1.bundle_pb2 import Role, TensorSpec

from .fakes import (
    CODE,
    GENERATOR,
    NUM_WS,
    SIZE,
    FakeEngine,
    encoder,
    entry,
    job_on,
    mapping,
    synthesis,
)

SEGMENTER = entry("segmenter", Role.ROLE_SEGMENTER, ("background", "face"))
GREY = Picture(np.full((40, 60, 3), 128, np.uint8))


def segmenter(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Background on the left half of each view, face on the right."""
    logits = np.zeros((len(inputs["image"]), 2, SIZE, SIZE), np.float32)
    logits[:, 1, :, SIZE // 2 :] = 5
    logits[:, 0, :, : SIZE // 2] = 5
    return {"logits": logits}


def editor() -> FakeEngine:
    return FakeEngine(
        {"synthesis": synthesis, "encoder": encoder, "segmenter": segmenter}, SEGMENTER
    )


def order(picture: Picture | None = GREY, **more: Any) -> EditOrder:
    step = OffsetStep(Layers(0, NUM_WS, "l"), np.array([10], np.float32), "edits[0]")
    return EditOrder(picture, more.pop("latents", None), [step], GENERATOR, {}, **more)


async def test_before_and_after_are_generated_in_one_call(workers: Workers) -> None:
    engine = editor()
    done = await edit(job_on(engine, workers, 123.0), order())
    (inputs,) = engine.ran("synthesis")
    assert inputs["w_plus"].shape[0] == 2
    assert inputs["w_plus"][1] == pytest.approx(inputs["w_plus"][0] + 10)
    assert set(engine.deadlines) == {123.0}
    # The latents' mean grows by 10, so the image by a tenth of half the range.
    middle = done.picture.rgb[20, 30].astype(int) - GREY.rgb[20, 30]
    assert middle.tolist() == [13, 13, 13]


async def test_encoder_and_segmenter_run_side_by_side(workers: Workers) -> None:
    engine = editor()
    engine.delays = {"encoder": 0.2, "segmenter": 0.2}
    region = RegionSpec((ClassPart("face"),))
    start = asyncio.get_running_loop().time()
    done = await edit(job_on(engine, workers), order(region=region, segmenter=SEGMENTER))
    assert asyncio.get_running_loop().time() - start < 0.39
    assert done.change is not None
    assert done.change.max_difference_outside == 0
    assert 0.3 < done.change.region_share < 0.7
    assert engine.promised == [[[("encoder", 1), ("segmenter", 2)], [("synthesis", 2)]]]


async def test_encoding_promises_its_networks_with_and_without_the_reconstruction(
    workers: Workers,
) -> None:
    """Else a call that has reserved its run would stand in its own way."""
    engine, asked = editor(), order()
    assert asked.picture is not None
    frame = central_frame(asked.picture.width, asked.picture.height)
    for reconstruct in (False, True):
        with job_on(engine, workers) as job:
            await encode(job, asked.picture, asked.generator, frame, reconstruct=reconstruct)
    assert engine.promised == [
        [[("encoder", 1)]],
        [[("encoder", 1)], [("synthesis", 1)]],
    ]


async def test_a_box_needs_no_segmenter_and_a_token_no_encoder(workers: Workers) -> None:
    engine = editor()
    latents = np.zeros((NUM_WS, 3), np.float32)
    region = RegionSpec((BoxPart(0, 0, 5, 5),))
    await edit(job_on(engine, workers), order(latents=latents, region=region, segmenter=SEGMENTER))
    assert [name for name, _ in engine.runs] == ["synthesis"]
    assert engine.promised == [[[], [("synthesis", 2)]]]


async def test_a_bad_region_costs_no_network(workers: Workers) -> None:
    engine = editor()
    region = RegionSpec((ClassPart("beard"),))
    with pytest.raises(RegionError):
        await edit(job_on(engine, workers), order(region=region, segmenter=SEGMENTER))
    with pytest.raises(Unsupported):
        await edit(job_on(engine, workers), order(region=region, segmenter=None))
    assert engine.runs == []


async def test_one_networks_failure_stops_the_other_and_is_raised_as_it_is(
    workers: Workers,
) -> None:
    engine = editor()
    engine.delays = {"segmenter": 30, "encoder": 0.3}  # the encoder fails while the other runs

    def fail(_: Mapping[str, Any]) -> dict[str, Any]:
        raise DeviceFailed("encoder", FailureKind.EXECUTION, "broken")

    engine.networks["encoder"] = fail
    region = RegionSpec((ClassPart("face"),))
    async with asyncio.timeout(5):
        with pytest.raises(DeviceFailed):
            await edit(job_on(engine, workers), order(region=region, segmenter=SEGMENTER))
    assert engine.cancelled == ["segmenter"]


async def test_a_region_of_latents_alone_is_laid_over_the_reconstruction(workers: Workers) -> None:
    latents = np.zeros((NUM_WS, 3), np.float32)
    region = RegionSpec((BoxPart(0, 0, SIZE // 2, SIZE),))
    done = await edit(job_on(editor(), workers), order(None, latents=latents, region=region))
    assert done.change is None
    assert (done.picture.rgb[:, SIZE // 2 :] == 128).all()
    assert (done.picture.rgb[:, : SIZE // 2] > 128).all()


PREDICTOR, TRANSFORMER = entry("predictor"), entry("transformer")
PRESETS = entry("presets", Role.ROLE_PRESET_STYLE, ("a", "b", "c"))


def stylist() -> FakeEngine:
    """A picture's code is its mean; the transformer paints the code, the presets their first
    weight."""

    def predict(inputs: Mapping[str, Any]) -> dict[str, Any]:
        means = inputs["image"].mean(axis=(1, 2, 3))
        return {"style_code": np.repeat(means[:, None], CODE, axis=1).astype(np.float32)}

    def flat(image: Any, value: Any) -> dict[str, Any]:
        return {"image_out": (np.zeros_like(image) + value[:, None, None, None]).astype(np.float32)}

    return FakeEngine(
        {
            "predictor": predict,
            "transformer": lambda inputs: flat(inputs["image"], inputs["style_code"][:, 0]),
            "presets": lambda inputs: flat(inputs["image"], inputs["style_weights"][:, 0]),
        }
    )


def pictures(*levels: int, weights: tuple[float, ...] = (1.0,)) -> PictureGroup:
    styles = [Picture(np.full((9, 9, 3), level, np.uint8)) for level in levels]
    return PictureGroup(PREDICTOR, TRANSFORMER, styles, weights)


async def level(workers: Workers, engine: FakeEngine, *groups: Any, strength: float = 1.0) -> int:
    content = Picture(np.full((20, 30, 3), 100, np.uint8))
    done = await stylise(job_on(engine, workers), StyleOrder(content, groups, strength))
    assert done.picture.rgb.min() == done.picture.rgb.max()
    return int(done.picture.rgb[0, 0, 0])


async def test_pictures_are_mixed_by_their_codes(workers: Workers) -> None:
    mix = pictures(40, 200, weights=(3.0, 1.0))
    assert await level(workers, stylist(), mix) == 80


async def test_strength_moves_the_code_from_the_contents_own(workers: Workers) -> None:
    engine = stylist()
    assert await level(workers, engine, pictures(200), strength=0.5) == 150
    (inputs,) = engine.ran("predictor")
    assert len(inputs["image"]) == 2, "style and content share one call"
    assert await level(workers, engine, pictures(200), strength=0.25) == 125


async def test_presets_weights_sum_to_one_and_fade_by_strength(workers: Workers) -> None:
    engine = stylist()
    half = PresetGroup(PRESETS, {0: 2.0, 2: 2.0})
    assert await level(workers, engine, half) == 128  # 0.5 · 255, rounded to even
    (inputs,) = engine.ran("presets")
    assert inputs["style_weights"].tolist() == [[0.5, 0.0, 0.5]]
    assert await level(workers, engine, PresetGroup(PRESETS, {0: 1.0}), strength=0.2) == 131


async def test_presets_and_pictures_are_blended_by_weight(workers: Workers) -> None:
    mixed = (PresetGroup(PRESETS, {0: 1.0}), pictures(55, weights=(3.0,)))
    assert await level(workers, stylist(), *mixed) == 105  # (255 + 3 · 55) / 4


async def test_strength_zero_runs_nothing(workers: Workers) -> None:
    engine = stylist()
    assert await level(workers, engine, pictures(200), strength=0.0) == 100
    assert engine.runs == []


def sampling(count: int) -> SampleOrder:
    return SampleOrder(list(range(count)), 1.0, GENERATOR, [], {})


async def test_samples_come_in_order_however_long_each_batch_takes(workers: Workers) -> None:
    engine = FakeEngine({"mapping": mapping, "synthesis": synthesis})
    seen = [each.seed async for each in generate(job_on(engine, workers), sampling(20))]
    assert seen == list(range(20))
    assert [len(inputs["w_plus"]) for inputs in engine.ran("synthesis")] == [8, 8, 4]


async def test_a_caller_who_leaves_stops_what_runs_ahead(workers: Workers) -> None:
    engine = FakeEngine({"mapping": mapping, "synthesis": synthesis})
    samples = generate(job_on(engine, workers), sampling(64))
    first = await anext(samples)
    assert first.index == 0
    engine.delays = {"synthesis": 30}
    for _ in range(7):
        await anext(samples)
    waiting = asyncio.ensure_future(anext(samples))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await samples.aclose()
    assert len(engine.ran("mapping")) <= 3, "at most two batches run ahead"


def test_a_seeds_latent_never_changes() -> None:
    expected = [latent_of_seed(7, 4), latent_of_seed(7, 4)]
    assert np.array_equal(*expected)
    assert not np.array_equal(latent_of_seed(7, 4), latent_of_seed(8, 4))
    assert np.isfinite(latent_of_seed(2**64 - 1, 512)).all()
    many = np.stack([latent_of_seed(seed, 128) for seed in range(200)])
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02


def test_classes_are_for_conditional_generators_only() -> None:
    plain = entry("mapping")
    assert class_weights(plain, "", "g") is None
    with pytest.raises(Unsupported, match="no classes"):
        class_weights(plain, "cat", "g")
    conditional = entry("mapping", labels=("cat", "dog"))
    conditional.inputs.append(TensorSpec(name="class_weights"))
    weights = class_weights(conditional, "dog", "g")
    assert weights is not None
    assert weights.tolist() == [0.0, 1.0]
    with pytest.raises(UnknownThing, match="cat, dog"):
        class_weights(conditional, "", "g")
