"""The engine over real little graphs: start, run, refuse, count, drain."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.engine import Engine, EngineOptions, LocalEngine
from velatura.server.engine.errors import Draining, InvalidTensor, ModelNotFound, ProviderError
from velatura.server.engine.providers import CUDA, Provider
from velatura.server.observability.metrics import Metrics

CPU_OPTIONS = EngineOptions(provider=Provider.CPU, strict=True, intra_threads=1, instances=1)


@pytest.fixture
def bundle(bundle_root: Path) -> Bundle:
    return Bundle.load(bundle_root)


@pytest.fixture
async def engine(bundle: Bundle, metrics: Metrics) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(bundle, CPU_OPTIONS, metrics)
    await engine.start()
    yield engine
    await engine.close()


def pictures(count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"image": rng.uniform(-1, 1, (count, 3, 8, 8)).astype(np.float32)}


async def test_runs_and_tells_its_provider(engine: LocalEngine) -> None:
    as_protocol: Engine = engine
    outputs = await as_protocol.run("tiny-segmenter", pictures(2))
    assert outputs["logits"].shape == (2, 3, 8, 8)
    assert as_protocol.provider("tiny-segmenter") == "CPUExecutionProvider"
    assert as_protocol.bundle.manifest.name == "tiny"


async def test_alone_and_in_a_batch_of_eight_differ_by_float_noise(engine: LocalEngine) -> None:
    alone = [await engine.run("tiny-segmenter", pictures(1, seed)) for seed in range(8)]
    together = await asyncio.gather(
        *(engine.run("tiny-segmenter", pictures(1, seed)) for seed in range(8))
    )
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other["logits"], one["logits"], atol=1e-5)


async def test_more_items_than_a_batch(engine: LocalEngine, metrics: Metrics) -> None:
    """tiny-mapping's manifest allows four items a batch."""
    z = np.arange(44, dtype=np.float32).reshape(11, 4)
    outputs = await engine.run(
        "tiny-mapping", {"z": z, "truncation_psi": np.full(11, 0.5, np.float32)}
    )
    np.testing.assert_array_equal(outputs["w"], z * 0.5)
    labels = {"model": "tiny-mapping"}
    assert metrics.registry.get_sample_value("velatura_batch_size_count", labels) == 3
    largest = labels | {"le": "4.0"}
    assert metrics.registry.get_sample_value("velatura_batch_size_bucket", largest) == 3


async def test_readiness_through_a_life(bundle: Bundle, metrics: Metrics) -> None:
    engine = LocalEngine(bundle, CPU_OPTIONS, metrics)

    def scraped() -> float | None:
        labels = {"model": "tiny-mapping"}
        return metrics.registry.get_sample_value("velatura_model_ready", labels)

    assert not engine.ready("tiny-mapping")
    assert engine.provider("tiny-mapping") == ""
    assert scraped() == 0.0
    with pytest.raises(Draining, match="not loaded"):
        await engine.run("tiny-mapping", {})
    await engine.start()
    assert engine.ready("tiny-mapping")
    assert not engine.ready("nope")
    assert scraped() == 1.0
    await engine.drain(1.0)
    assert not engine.ready("tiny-mapping")
    assert scraped() == 0.0
    with pytest.raises(Draining):
        await engine.run("tiny-segmenter", pictures(1))
    await engine.close()


async def test_bad_requests_never_reach_a_queue(engine: LocalEngine, metrics: Metrics) -> None:
    with pytest.raises(ModelNotFound):
        await engine.run("nope", {})
    with pytest.raises(InvalidTensor):
        await engine.run("tiny-segmenter", {"image": np.zeros((1, 3, 9, 8), np.float32)})
    bad = pictures(1)
    bad["image"][0, 0, 0, 0] = np.nan
    with pytest.raises(InvalidTensor):
        await engine.run("tiny-segmenter", bad)
    large = np.full((1, 3, 800, 800), np.inf, np.float32)  # looked at on a thread
    with pytest.raises(InvalidTensor):
        await engine.run(
            "tiny-presets", {"image": large, "style_weights": np.ones((1, 2), np.float32)}
        )
    labels = {"model": "tiny-segmenter", "outcome": "invalid"}
    assert metrics.registry.get_sample_value("velatura_model_requests_total", labels) == 2
    labels = {"model": "tiny-segmenter"}
    assert metrics.registry.get_sample_value("velatura_batch_size_count", labels) == 0


async def test_infinite_deadline_is_none(engine: LocalEngine) -> None:
    await engine.run("tiny-segmenter", pictures(1), deadline=math.inf)
    await engine.run("tiny-segmenter", pictures(1), deadline=time.monotonic() + 30)


async def test_free_sizes_of_one_shape_share_a_batch(engine: LocalEngine, metrics: Metrics) -> None:
    def stylise(height: int, width: int) -> Any:
        image = np.full((1, 3, height, width), 0.25, np.float32)
        return engine.run(
            "tiny-presets", {"image": image, "style_weights": np.ones((1, 2), np.float32)}
        )

    outputs = await asyncio.gather(*(stylise(16, 8 + 4 * (n % 2)) for n in range(8)))
    assert [output["image_out"].shape[3] for output in outputs] == [8, 12] * 4
    assert all((output["image_out"] == 0.5).all() for output in outputs)
    labels = {"model": "tiny-presets"}
    assert metrics.registry.get_sample_value("velatura_batch_size_count", labels) == 2


async def test_information_for_dashboards(engine: LocalEngine, metrics: Metrics) -> None:
    await engine.run("tiny-segmenter", pictures(1))
    samples = {
        sample.name: sample.labels
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.value
    }
    assert samples["velatura_provider_info"]["provider"] == "CPUExecutionProvider"
    assert samples["velatura_provider_info"]["requested"] == "cpu"
    assert samples["velatura_model_info"]["sha256"]
    cost = {"model": "tiny-segmenter"}
    for name in (
        "velatura_model_cost_item_seconds",
        "velatura_model_cost_batch_seconds",
        "velatura_admission_stretch_ratio",
    ):
        assert metrics.registry.get_sample_value(name, cost) is not None


async def test_strict_cuda_without_cuda_refuses_to_start(bundle: Bundle, metrics: Metrics) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("the GPU build is installed here")
    engine = LocalEngine(bundle, EngineOptions(provider=Provider.CUDA, strict=True), metrics)
    with pytest.raises(ProviderError, match="CUDAExecutionProvider"):
        await engine.start()
    assert not engine.ready("tiny-mapping")


async def test_auto_starts_and_counts_the_fall(bundle: Bundle, metrics: Metrics) -> None:
    engine = LocalEngine(bundle, EngineOptions(intra_threads=1, instances=1), metrics)
    await engine.start()
    if engine.provider("tiny-mapping") != CUDA:
        falls = [
            sample.value
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name == "velatura_provider_fallback_total"
        ]
        assert sum(falls) >= 1
    await engine.close()


def test_a_manifest_may_only_lower_the_batch(bundle: Bundle) -> None:
    entry = bundle.model("tiny-mapping")  # its manifest says 4
    assert EngineOptions(max_batch_size=8).limits(entry).max_batch_size == 4
    assert EngineOptions(max_batch_size=2).limits(entry).max_batch_size == 2
    assert EngineOptions().limits(bundle.model("tiny-segmenter")).max_batch_size == 8
