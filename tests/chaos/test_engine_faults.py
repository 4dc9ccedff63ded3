"""The engine while its networks fail, stall, answer nonsense, lose their callers and are told to
stop.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.engine import EngineOptions, LocalEngine
from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    Draining,
    EngineError,
    FailureKind,
    QueueFull,
)
from velatura.server.engine.finite import is_finite
from velatura.server.engine.providers import Provider
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import BundleManifest, ModelEntry, TensorSpec

# A few of these spoil a run, as an input that overflows inside a network does.
OVERFLOWS = 1e6


@dataclass
class FaultySession:
    """Adds one, unless told to misbehave; may be changed while it runs."""

    provider: str = "CPUExecutionProvider"
    seconds: float = 0.0
    fault: Callable[[Mapping[str, NDArray[Any]]], None] = lambda _: None
    runs: int = 0
    seen: list[float] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.runs += 1
        self.gate.wait(30)
        if self.seconds:
            time.sleep(self.seconds)
        self.fault(inputs)
        self.seen.extend(inputs["x"][:, 0].tolist())
        outputs = np.where(inputs["x"] >= OVERFLOWS, np.nan, inputs["x"] + 1)
        if not is_finite(outputs):
            raise DeviceFailed("m", FailureKind.NON_FINITE, "output 'y' has NaN")
        return {"y": outputs}


def lost(_: Any) -> None:
    raise DeviceFailed("m", FailureKind.DEVICE_LOST, "CUDA failure 700")


def crash(_: Any) -> None:
    raise RuntimeError("segfault's little sister")


def manifest() -> BundleManifest:
    x, y = (TensorSpec(name=name, dtype="float32", shape=[-1, 2]) for name in "xy")
    return BundleManifest(
        schema_version=1,
        name="chaos",
        models=[ModelEntry(name=name, inputs=[x], outputs=[y]) for name in ("m", "other")],
    )


class Rig:
    """An engine over two faulty networks, `m` and `other`."""

    def __init__(self, **options: Any) -> None:
        self.sessions: dict[str, FaultySession] = {}
        self.metrics = Metrics()
        chosen = {"provider": Provider.CPU, "probe_interval_s": 0.02, "instances": 1} | options
        bundle = Bundle(Path(), manifest(), "", {})
        self.engine = LocalEngine(
            bundle, EngineOptions(**chosen), self.metrics, open_session=self._open
        )

    def _open(self, entry: ModelEntry, *_: Any) -> FaultySession:
        return self.sessions.setdefault(entry.name, FaultySession())

    @property
    def m(self) -> FaultySession:
        return self.sessions["m"]

    async def ask(self, value: float, model: str = "m", count: int = 1, **more: Any) -> Any:
        """Ask and check that the answer belongs to the question."""
        outputs = await self.engine.run(
            model, {"x": np.full((count, 2), value, np.float32)}, **more
        )
        np.testing.assert_array_equal(outputs["y"], np.full((count, 2), value + 1, np.float32))
        return outputs

    def left_over(self) -> tuple[int, int, int]:
        batcher = self.engine.batcher("m")
        return batcher.queued_items, batcher.queued_bytes, batcher.running_items

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"model": "m", **labels}) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a worker thread changes it
            await asyncio.sleep(0.002)


@pytest.fixture
async def rig() -> AsyncIterator[Callable[..., Any]]:
    rigs: list[Rig] = []

    async def make(**options: Any) -> Rig:
        rigs.append(Rig(**options))
        await rigs[-1].engine.start()
        return rigs[-1]

    yield make
    for made in rigs:
        for session in made.sessions.values():
            session.gate.set()
        await made.engine.close()


@pytest.mark.parametrize("fault", [crash, lost])
async def test_broken_network_is_not_ready_until_it_works_again(rig: Any, fault: Any) -> None:
    r = await rig()
    r.m.fault = fault
    for n in range(3):
        with pytest.raises(DeviceFailed):
            await r.ask(n)
    await until(lambda: not r.engine.ready("m"))
    assert r.value("velatura_model_ready") == 0.0
    assert r.engine.ready("other")
    await r.ask(1.0, "other")
    r.m.fault = lambda _: None
    await until(lambda: r.engine.ready("m"))
    await r.ask(5.0)
    assert r.left_over() == (0, 0, 0)


async def test_flaky_network_loses_nobody_but_the_unlucky(rig: Any) -> None:
    """Every third run fails: batches are run again item by item, and readiness holds as long as
    probes pass.
    """
    r = await rig()
    rng = random.Random(3)

    def flaky(_: Any) -> None:
        if rng.random() < 0.3:
            raise RuntimeError("cosmic ray")

    r.m.fault = flaky
    results = await asyncio.gather(*(r.ask(float(n)) for n in range(200)), return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, DeviceFailed) for error in failed)
    assert 0 < len(failed) < 100
    assert r.left_over() == (0, 0, 0)
    r.m.fault = lambda _: None
    await until(lambda: r.engine.ready("m"))


async def test_numbers_that_overflow_hurt_only_their_sender(rig: Any) -> None:
    r = await rig()
    values = [OVERFLOWS if n % 5 == 0 else float(n) for n in range(40)]
    results = await asyncio.gather(*map(r.ask, values), return_exceptions=True)
    for value, result in zip(values, results, strict=True):
        assert isinstance(result, DeviceFailed) == (value == OVERFLOWS)
    assert r.value("velatura_model_failures_total", reason="non_finite") >= 8
    for _ in range(20):  # one hostile caller alone cannot take the network out of service
        with pytest.raises(DeviceFailed):
            await r.ask(OVERFLOWS)
        assert r.engine.ready("m")
    assert r.left_over() == (0, 0, 0)


async def test_slow_network_sheds_instead_of_letting_everybody_expire(rig: Any) -> None:
    r = await rig(max_batch_size=4)
    r.m.seconds = 0.03
    for n in range(40):  # learn the cost
        await r.ask(float(n))
    deadline = time.monotonic() + 0.6  # enough for 80; a busy machine manages a few of them
    results = await asyncio.gather(
        *(r.ask(float(n), deadline=deadline) for n in range(200)), return_exceptions=True
    )
    shed = [result for result in results if isinstance(result, QueueFull)]
    expired = [result for result in results if isinstance(result, DeadlineExceeded)]
    served = [result for result in results if isinstance(result, dict)]
    assert len(shed) + len(expired) + len(served) == 200
    assert len(shed) >= 60
    assert len(served) >= 4
    assert len(expired) <= 20
    assert all(error.retry_after_s > 0 for error in shed)
    assert r.left_over() == (0, 0, 0)


async def test_hanging_run_leaves_the_cpus_to_other_networks(rig: Any) -> None:
    r = await rig(stall_timeout_s=0.05)
    r.m.gate.clear()
    task = asyncio.create_task(r.ask(1.0))
    await until(lambda: not r.engine.ready("m"))
    assert r.engine.ready("other")
    async with asyncio.timeout(10):
        await r.ask(2.0, "other")
    r.m.gate.set()
    await task
    assert r.engine.ready("m")


async def test_storm_of_cancellations_leaves_no_trace(rig: Any) -> None:
    r = await rig(max_queue_items=100_000)
    r.m.seconds = 0.001
    rng = random.Random(5)
    tasks = []
    for n in range(1500):
        tasks.append(asyncio.create_task(r.ask(float(n), count=rng.randint(1, 12))))
        if rng.random() < 0.7:
            rng.choice(tasks).cancel()
        if rng.random() < 0.05:
            await asyncio.sleep(0)
    for task in rng.sample(tasks, 1000):
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    bad = [
        result
        for result in results
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError)
    ]
    assert not bad
    assert any(isinstance(result, dict) for result in results)
    await until(lambda: r.left_over() == (0, 0, 0))
    await r.ask(1.0)


async def test_cancelled_while_queued_never_run(rig: Any) -> None:
    r = await rig()
    r.m.gate.clear()
    running = asyncio.create_task(r.ask(0.0))
    before = r.m.runs
    await until(lambda: r.m.runs > before)
    doomed = [asyncio.create_task(r.ask(1000.0 + n)) for n in range(50)]
    await asyncio.sleep(0)
    for task in doomed:
        task.cancel()
    await asyncio.gather(*doomed, return_exceptions=True)
    assert r.left_over()[0] == 0
    r.m.gate.set()
    await running
    await r.ask(1.0)
    assert not [value for value in r.m.seen if value >= 1000.0]
    assert r.value("velatura_model_requests_total", outcome="cancelled") == 50


async def test_drain_under_load_finishes_the_accepted_and_refuses_the_rest(rig: Any) -> None:
    r = await rig()
    r.m.seconds = 0.005
    accepted = [asyncio.create_task(r.ask(float(n))) for n in range(80)]
    await asyncio.sleep(0.01)
    drain = asyncio.create_task(r.engine.drain(20.0))
    await asyncio.sleep(0)
    refused = await asyncio.gather(*(r.ask(float(n)) for n in range(20)), return_exceptions=True)
    assert all(isinstance(error, Draining) for error in refused)
    assert not r.engine.ready("m")
    await drain
    assert r.left_over() == (0, 0, 0)
    results = await asyncio.gather(*accepted, return_exceptions=True)
    assert all(isinstance(result, dict) for result in results)


async def test_drain_limit_holds_against_a_hanging_run(rig: Any) -> None:
    r = await rig()
    r.m.gate.clear()
    before = r.m.runs
    tasks = [asyncio.create_task(r.ask(0.0))]
    await until(lambda: r.m.runs > before)
    tasks += [asyncio.create_task(r.ask(float(n))) for n in range(10)]
    await asyncio.sleep(0)
    began = time.monotonic()
    await r.engine.drain(0.1)
    assert time.monotonic() - began < 2.0
    await r.engine.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, Draining) for result in results)


async def test_drain_while_the_network_fails(rig: Any) -> None:
    r = await rig()
    r.m.seconds, r.m.fault = 0.002, crash
    tasks = [asyncio.create_task(r.ask(float(n))) for n in range(60)]
    await asyncio.sleep(0.005)
    await r.engine.drain(20.0)
    assert r.left_over() == (0, 0, 0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, EngineError) for result in results)


async def test_network_that_fails_its_warm_up_stops_the_start() -> None:
    r = Rig()
    r.sessions["other"] = FaultySession(fault=crash)
    with pytest.raises(RuntimeError, match="little sister"):
        await r.engine.start()
    assert not r.engine.ready("m")
    with pytest.raises(Draining):
        await r.ask(1.0)
