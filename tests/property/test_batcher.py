"""Whatever the sizes, shapes, orders and cancellations: everybody gets their own answer, and
nothing is left over.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.cost import CostModel
from velatura.server.engine.errors import DeadlineExceeded, DeviceFailed
from velatura.server.engine.shape_queue import Request, ShapeQueue, split
from velatura.server.observability.metrics import Metrics

MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@dataclass(frozen=True)
class Call:
    """One caller: how many items of which width, after which pause, and how it ends."""

    count: int
    width: int
    pause: int
    cancelled_after: int | None
    poisoned: bool


calls = st.lists(
    st.builds(
        Call,
        count=st.integers(1, 11),
        width=st.integers(1, 3),
        pause=st.integers(0, 3),
        cancelled_after=st.none() | st.integers(0, 4),
        poisoned=st.sampled_from([False] * 7 + [True]),
    ),
    min_size=1,
    max_size=25,
)


@dataclass
class Recorder:
    """A network that remembers its batches; every row carries the tag of its caller and its place
    there.
    """

    slow_s: float = 0.0
    batches: list[NDArray[Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    at_once: int = 0
    most_at_once: int = 0

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        tags, body = inputs["tag"], inputs["body"]
        with self.lock:
            self.batches.append(tags.copy())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.slow_s)
        with self.lock:
            self.at_once -= 1
        assert len(tags) == len(body)  # one batch axis
        if (body < 0).any():
            raise ValueError("poisoned")
        return {"tag": tags * 10, "width": np.full(len(tags), body.shape[1])}


def tensors(number: int, call: Call) -> dict[str, NDArray[Any]]:
    tag = np.stack([np.full(call.count, number), np.arange(call.count)], axis=1)  # [count, 2]
    value = -1.0 if call.poisoned else 1.0
    return {"tag": tag, "body": np.full((call.count, call.width), value, np.float32)}


async def play(
    schedule: list[Call], limits: BatchLimits, slow_s: float
) -> tuple[list[Any], Recorder, Batcher, Metrics]:
    """Let every caller have its way; returns results or exceptions, in order."""
    network, metrics = Recorder(slow_s), Metrics()
    batcher = Batcher("m", network.run, limits, metrics.for_model("m"))

    async def one(number: int, call: Call) -> Any:
        for _ in range(call.pause):
            await asyncio.sleep(0)
        task = asyncio.create_task(batcher.submit(tensors(number, call)))
        if call.cancelled_after is not None:
            for _ in range(call.cancelled_after):
                await asyncio.sleep(0)
            task.cancel()
        return await asyncio.gather(task, return_exceptions=True)

    results = await asyncio.gather(*(one(number, call) for number, call in enumerate(schedule)))
    await batcher.drain(20.0)
    await batcher.close()
    return [result[0] for result in results], network, batcher, metrics


def check_answers(schedule: list[Call], results: list[Any]) -> None:
    for number, (call, result) in enumerate(zip(schedule, results, strict=True)):
        if isinstance(result, asyncio.CancelledError):
            assert call.cancelled_after is not None
        elif isinstance(result, BaseException):
            assert isinstance(result, DeviceFailed), result
            assert call.poisoned
        else:
            assert not call.poisoned
            np.testing.assert_array_equal(result["tag"][:, 0], np.full(call.count, number * 10))
            np.testing.assert_array_equal(result["tag"][:, 1], np.arange(call.count) * 10)
            np.testing.assert_array_equal(result["width"], np.full(call.count, call.width))


def check_batches(schedule: list[Call], network: Recorder, limits: BatchLimits) -> None:
    for batch in network.batches:
        assert 1 <= len(batch) <= limits.max_batch_size
        assert len({schedule[number].width for number in batch[:, 0]}) == 1
    assert network.most_at_once <= limits.instances


@MANY
@given(
    schedule=calls,
    max_batch=st.integers(1, 9),
    instances=st.integers(1, 3),
    delay_s=st.sampled_from([0.0, 0.002]),
    slow_s=st.sampled_from([0.0, 0.0005]),
)
def test_everybody_gets_their_own_answer(
    schedule: list[Call], max_batch: int, instances: int, delay_s: float, slow_s: float
) -> None:
    limits = BatchLimits(
        max_batch_size=max_batch,
        max_queue_items=10_000,
        max_queue_delay_s=delay_s,
        instances=instances,
    )
    results, network, batcher, metrics = asyncio.run(play(schedule, limits, slow_s))
    check_answers(schedule, results)
    check_batches(schedule, network, limits)
    assert (batcher.queued_items, batcher.queued_bytes, batcher.running_items) == (0, 0, 0)
    for name in ("velatura_queue_depth", "velatura_queue_bytes"):
        assert metrics.registry.get_sample_value(name, {"model": "m"}) == 0.0


@MANY
@given(
    waiting=st.lists(
        st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), min_size=1, max_size=20
    ),
    max_batch=st.integers(1, 8),
)
def test_cancelled_and_expired_are_never_dispatched(
    waiting: list[tuple[int, bool, bool]], max_batch: int
) -> None:
    """All of them queue behind a run that ends only after the cancellations and deadlines."""
    gate = threading.Event()
    seen: set[int] = set()
    in_time: list[bool] = []  # whether the cancellations came before the deadline

    def run(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        seen.update(inputs["x"].ravel().tolist())
        gate.wait(20)
        return {"y": inputs["x"]}

    async def scene() -> list[Any]:
        batcher = Batcher("m", run, BatchLimits(max_batch_size=max_batch), Metrics().for_model("m"))
        first = asyncio.create_task(batcher.submit({"x": np.array([-1])}))
        while -1 not in seen:  # noqa: ASYNC110 - a worker thread changes it
            await asyncio.sleep(0.0005)
        soon = time.monotonic() + 0.02
        tasks = [
            asyncio.create_task(
                batcher.submit({"x": np.full(count, number)}, deadline=soon if expires else None)
            )
            for number, (count, _, expires) in enumerate(waiting)
        ]
        await asyncio.sleep(0)
        for task, (_, cancelled, _) in zip(tasks, waiting, strict=True):
            if cancelled:
                task.cancel()
        in_time.append(time.monotonic() < soon)
        while time.monotonic() < soon:  # noqa: ASYNC110 - the clock changes it
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.002)
        live = sum(count for count, cancelled, expires in waiting if not cancelled and not expires)
        assert batcher.queued_items == live
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await first
        assert (batcher.queued_items, batcher.queued_bytes, batcher.running_items) == (0, 0, 0)
        await batcher.close()
        return results

    results = asyncio.run(scene())
    for number, ((count, cancelled, expires), result) in enumerate(
        zip(waiting, results, strict=True)
    ):
        if cancelled or expires:
            wanted = asyncio.CancelledError if cancelled else DeadlineExceeded
            # On a machine that stalled, the deadline was first.
            late = cancelled and expires and in_time == [False]
            assert isinstance(result, (wanted, DeadlineExceeded) if late else wanted)
            assert number not in seen
        else:
            np.testing.assert_array_equal(result["y"], np.full(count, number))


@MANY
@given(
    sizes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 3)), min_size=1, max_size=30),
    rows=st.integers(1, 8),
    max_elements=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_queue_hands_out_everything_once_and_the_oldest_first(
    sizes: list[tuple[int, int]], rows: int, max_elements: int, seed: int
) -> None:
    rng, queue, waiting, sequence = random.Random(seed), ShapeQueue(), {}, 0
    loop = asyncio.new_event_loop()
    for count, width in sizes:
        request = Request(count, 0.0, None, loop.create_future())
        for chunk in split(request, {"x": np.zeros((count, width))}, sequence, rows, 1.5):
            sequence += 1
            chunk.alone = rng.random() < 0.2
            queue.push(chunk)
            waiting[chunk.sequence] = chunk
    loop.close()
    while queue:
        if rng.random() < 0.3:
            chunk = rng.choice(list(waiting.values()))
            assert queue.remove(waiting.pop(chunk.sequence))
            assert not queue.remove(chunk)
            continue
        head = queue.heads()[0]
        assert head.sequence == min(waiting)
        picked = queue.pick(head, rows, max_elements)
        assert picked[0] is head
        assert len({chunk.bucket for chunk in picked}) == 1
        assert len(picked) == 1 or not head.alone
        assert sum(chunk.items for chunk in picked) <= rows
        assert len(picked) == 1 or sum(chunk.elements for chunk in picked) <= max_elements
        for chunk in picked:
            assert queue.remove(waiting.pop(chunk.sequence))
    assert not waiting
    assert (queue.items, queue.nbytes, queue.work) == (0, 0, 0.0)


@MANY
@given(st.lists(st.tuples(st.integers(1, 32), st.floats(1e-6, 100.0)), min_size=1, max_size=50))
def test_cost_is_never_negative_or_lost(runs: list[tuple[int, float]]) -> None:
    cost = CostModel()
    for work, seconds in runs:
        cost.observe(float(work), seconds)
        assert cost.a >= 0.0
        assert cost.b >= 0.0
        assert np.isfinite([cost.a, cost.b]).all()
        assert cost.estimate(1.0) > 0.0
        assert cost.estimate(2.0) >= cost.estimate(1.0)
