"""Which lanes a network gets: by load, as set, and on a device that this machine does not have."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.engine import LocalEngine
from velatura.server.engine.loading import Loader
from velatura.server.engine.options import EngineOptions
from velatura.server.engine.providers import CPU, CUDA, TENSORRT, Provider, ProviderPlan
from velatura.server.engine.sessions import OrtSession
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry

ON_CPU = ProviderPlan(Provider.CPU, True, [CPU])
ON_GPU = ProviderPlan(Provider.CUDA, False, [(CUDA, {}), CPU])
ON_TENSORRT = ProviderPlan(Provider.TENSORRT, False, [(TENSORRT, {}), (CUDA, {}), CPU])


class Opened:
    """Sessions that remember how they were opened and what they ran."""

    def __init__(self, provider: str = CPU, seconds: float = 0.0) -> None:
        self.provider = provider
        self.seconds = seconds
        self.threads: dict[str, list[int]] = {}
        self.plans: list[ProviderPlan] = []
        self.batches: list[int] = []
        self._lock = threading.Lock()

    def __call__(
        self, entry: ModelEntry, file: Path, plan: ProviderPlan, threads: int, _: Metrics
    ) -> Opened:
        assert file.is_file()
        with self._lock:
            self.threads.setdefault(entry.name, []).append(threads)
            self.plans.append(plan)
        return self

    def run(self, inputs: Any) -> Any:
        with self._lock:
            self.batches.append(len(next(iter(inputs.values()))))
        time.sleep(self.seconds)
        return {}


def lanes(
    bundle: Bundle, options: EngineOptions, plan: ProviderPlan, sessions: Opened, cpus: int = 4
) -> dict[str, list[tuple[str, int, int]]]:
    """(name, threads, places) of every network's lanes."""
    loader = Loader(bundle, options, plan, Metrics(), sessions)
    loader._cpus = cpus
    return {
        opened.entry.name: [(lane.name, lane.threads, lane.places) for lane in opened.lanes]
        for opened in loader.open_all()
    }


@pytest.fixture
def bundle(bundle_root: Path) -> Bundle:
    return Bundle.load(bundle_root)


def test_by_load_a_network_has_a_wide_lane_where_that_can_pay(bundle: Bundle) -> None:
    slow = Opened(seconds=0.004)
    found = lanes(bundle, EngineOptions(), ON_CPU, slow)
    assert found["tiny-synthesis"] == [("wide", 4, 1), ("narrow", 1, 4)]
    assert sorted(slow.threads["tiny-synthesis"]) == [1, 4]
    assert set(slow.batches) == {1, 4}  # brief: the start is waited for
    quick = Opened()
    assert lanes(bundle, EngineOptions(), ON_CPU, quick)["tiny-mapping"] == [("narrow", 1, 4)]
    one_cpu = lanes(bundle, EngineOptions(), ON_CPU, Opened(seconds=0.004), cpus=1)
    assert one_cpu["tiny-synthesis"] == [("narrow", 1, 1)]


@pytest.mark.parametrize(
    ("instances", "threads", "expected", "gate"),
    [(2, 2, (2, 2), 4), (1, 0, (4, 1), 4), (0, 2, (2, 2), 4), (3, 4, (4, 3), 12)],
)
def test_what_is_set_is_what_runs(
    bundle: Bundle, instances: int, threads: int, expected: tuple[int, int], gate: int
) -> None:
    options = EngineOptions(instances=instances, intra_threads=threads)
    found = lanes(bundle, options, ON_CPU, Opened())
    assert set(map(tuple, found.values())) == {(("fixed", *expected),)}
    loader = Loader(bundle, options, ON_CPU, Metrics(), Opened())
    loader._cpus = 4
    assert loader.gate_cpus == gate


def test_a_device_has_one_lane_and_every_size_warm(bundle: Bundle) -> None:
    gpu = Opened(provider=CUDA)
    options = EngineOptions(warm_sides=(64, 128))
    found = lanes(bundle, options, ON_GPU, gpu)
    assert set(map(tuple, found.values())) == {(("device", 0, 1),)}
    assert set(gpu.batches) == set(range(1, 9))
    assert Loader(bundle, options, ON_GPU, Metrics(), gpu).gate_cpus is None
    padded = Opened(provider=CUDA)
    lanes(bundle, EngineOptions(pad_sizes=(2, 8)), ON_GPU, padded)
    assert set(padded.batches) == {2, 8}  # the manifest's limit of four leaves tiny-mapping 2
    fallen = lanes(bundle, EngineOptions(), ON_GPU, Opened(provider=CPU))
    assert fallen["tiny-synthesis"] == [("fixed", 4, 1)]


def test_tensorrt_gets_each_networks_shapes(bundle: Bundle) -> None:
    sessions = Opened(provider=TENSORRT)
    lanes(bundle, EngineOptions(max_batch_size=4), ON_TENSORRT, sessions)
    profiles = {plan.providers[0][1]["trt_profile_max_shapes"] for plan in sessions.plans}
    assert "w_plus:4x2x4" in profiles
    assert "image:4x3x128x128,style_weights:4x2" in profiles


async def test_by_load_both_lanes_answer_alike(bundle: Bundle, monkeypatch: Any) -> None:
    """Real sessions; the threshold is moved so that little graphs get both."""
    monkeypatch.setattr("velatura.server.engine.loading.WIDE_PAYS_S", 0.0)
    monkeypatch.setattr("velatura.server.engine.loading.cpu_budget", lambda: 2)
    metrics = Metrics()
    options = EngineOptions(provider=Provider.CPU, strict=True)
    engine = LocalEngine(bundle, options, metrics, open_session=OrtSession)
    await engine.start()
    lanes = engine.batcher("tiny-segmenter").lanes
    assert [lane.name for lane in lanes] == ["wide", "narrow"]
    image = np.random.default_rng(1).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)
    expected = (await engine.run("tiny-segmenter", {"image": image}))["logits"]
    for slower in (lanes.wide, lanes.narrow):
        for lane in lanes:
            lane.cost.a = 1.0 if lane is slower else 0.001
            lane.cost.b = 0.0
        answer = await engine.run("tiny-segmenter", {"image": image})
        np.testing.assert_array_equal(answer["logits"], expected)
    name = "velatura_lane_runs_total"
    for lane in ("wide", "narrow"):
        labels = {"model": "tiny-segmenter", "lane": lane}
        assert (metrics.registry.get_sample_value(name, labels) or 0.0) >= 1.0
    await engine.close()


@pytest.mark.parametrize(
    ("plan", "runs_on", "advice"),
    [
        (ON_CPU, CPU, None),
        (ON_GPU, CPU, None),  # fell back to what it was written for
        (ON_GPU, CUDA, "cuda"),
        (ON_TENSORRT, TENSORRT, "tensorrt"),
        (replace(ON_GPU, requested=Provider.AUTO), CUDA, "cuda"),
    ],
)
def test_a_graph_written_for_another_provider_is_pointed_out(
    bundle: Bundle,
    caplog: pytest.LogCaptureFixture,
    plan: ProviderPlan,
    runs_on: str,
    advice: str | None,
) -> None:
    next(e for e in bundle.manifest.models if e.name == "tiny-synthesis").written_for = "cpu"
    with caplog.at_level(logging.WARNING):
        lanes(bundle, EngineOptions(), plan, Opened(provider=runs_on))
    warned = [message for message in caplog.messages if "written for" in message]
    assert len(warned) == (advice is not None)
    if advice is not None:
        assert "tiny-synthesis" in warned[0]
        assert warned[0].endswith(f"export it with --provider {advice}")
