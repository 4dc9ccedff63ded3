"""The batcher's decisions one by one, with a network that a test holds still and lets go."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    Draining,
    InvalidTensor,
    QueueFull,
    Refusal,
)
from velatura.server.observability.metrics import Metrics

from .benches import items, until


async def test_idle_device_runs_at_once_without_a_copy(bench: Any) -> None:
    b = bench()
    inputs = items(1.0, 2.0)
    outputs = await b.batcher.submit(inputs)
    np.testing.assert_array_equal(outputs["y"], inputs["x"] * 2)
    assert b.device.batches[0] is inputs["x"]
    assert b.value("velatura_batch_closed_total", reason="device_free") == 1


async def test_same_turn_arrivals_share_a_batch(bench: Any) -> None:
    b = bench()
    outputs = await asyncio.gather(*(b.submit(float(n)) for n in range(5)))
    assert b.device.sizes == [5]
    assert [float(output["y"][0, 0]) for output in outputs] == [0.0, 2.0, 4.0, 6.0, 8.0]


async def test_what_queued_while_busy_goes_together(bench: Any) -> None:
    b = bench(held=True, max_batch_size=4)
    tasks = [await b.occupy()]
    for n in range(6):
        tasks.append(b.submit(float(n)))
        await asyncio.sleep(0.002)
    assert b.batcher.queued_items == 6
    assert b.value("velatura_queue_depth") == 6
    b.device.let_go(3)
    await asyncio.gather(*tasks)
    assert b.device.sizes == [1, 4, 2]
    assert b.value("velatura_batch_closed_total", reason="full") == 1
    assert b.value("velatura_queue_depth") == 0
    assert b.value("velatura_batch_size_count") == 3
    assert b.value("velatura_batch_size_sum") == 7


async def test_shapes_never_mix_and_the_oldest_goes_first(bench: Any) -> None:
    b = bench(held=True)
    tasks = [await b.occupy()]
    for value, width in ((1.0, 3), (2.0, 5), (3.0, 3), (4.0, 5)):
        tasks.append(b.submit(value, width=width))
    await asyncio.sleep(0)
    b.device.let_go(3)
    outputs = await asyncio.gather(*tasks)
    assert [batch.shape for batch in b.device.batches] == [(1, 2), (2, 3), (2, 5)]
    assert [output["y"].shape[1] for output in outputs] == [2, 3, 5, 3, 5]
    assert b.value("velatura_batch_closed_total", reason="shape") == 1  # others waited
    assert b.value("velatura_batch_closed_total", reason="device_free") == 2


async def test_element_types_never_mix(bench: Any) -> None:
    b = bench()
    double = asyncio.create_task(b.batcher.submit({"x": np.ones((1, 2), np.float64)}))
    single = b.submit(1.0)
    assert (await double)["y"].dtype == np.float64
    assert (await single)["y"].dtype == np.float32


async def test_large_request_is_split_and_joined(bench: Any) -> None:
    b = bench(max_batch_size=4)
    outputs = await b.batcher.submit(items(*map(float, range(10))))
    np.testing.assert_array_equal(outputs["y"][:, 0], np.arange(10) * 2)
    assert b.device.sizes == [4, 4, 2]


async def test_last_chunk_takes_company(bench: Any) -> None:
    b = bench(max_batch_size=4)
    large, small = await asyncio.gather(b.submit(*map(float, range(6))), b.submit(50.0, 51.0))
    assert b.device.sizes == [4, 4]
    assert small["y"][:, 0].tolist() == [100.0, 102.0]
    assert large["y"][:, 0].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


async def test_large_items_limit_the_batch_by_elements(bench: Any) -> None:
    b = bench(max_batch_elements=1000)
    await asyncio.gather(
        *(b.submit(float(n), width=400) for n in range(4)), b.submit(1.0, width=5000)
    )
    assert b.device.sizes == [2, 2, 1]


async def test_a_large_joined_answer_leaves_the_loop(bench: Any) -> None:
    b = bench(max_batch_size=1)
    outputs = await b.batcher.submit(items(1.0, 2.0, width=300_000))
    assert outputs["y"].shape == (2, 300_000)
    assert outputs["y"][:, -1].tolist() == [2.0, 4.0]


async def test_delay_waits_for_company_and_no_longer(bench: Any) -> None:
    b = bench(max_queue_delay_s=0.15, max_batch_size=3)
    began = time.monotonic()
    first = b.submit(1.0)
    await asyncio.sleep(0.02)
    await asyncio.gather(first, b.submit(2.0))
    assert 0.1 < time.monotonic() - began < 2.0
    assert b.device.sizes == [2]
    assert b.value("velatura_batch_closed_total", reason="delay") == 1
    began = time.monotonic()
    await asyncio.gather(*(b.submit(float(n)) for n in range(3)))  # full: no reason to wait
    assert time.monotonic() - began < 0.1


async def test_delay_is_cut_short_for_a_deadline(bench: Any) -> None:
    b = bench(max_queue_delay_s=30.0, max_batch_size=3)
    b.batcher.cost.observe(1.0, 0.1)
    await b.submit(1.0, deadline=time.monotonic() + 0.5)
    assert b.value("velatura_batch_closed_total", reason="deadline") == 1
    assert b.value("velatura_batch_closed_total", reason="delay") == 0


async def test_two_instances_run_side_by_side(bench: Any) -> None:
    b = bench(held=True, instances=2, max_batch_size=1)
    tasks = [b.submit(1.0), b.submit(2.0), b.submit(3.0)]
    await until(lambda: len(b.device.batches) == 2)
    assert (b.batcher.running_items, b.batcher.queued_items) == (2, 1)
    b.device.let_go(3)
    await asyncio.gather(*tasks)


async def test_full_queue_says_when_to_come_back(bench: Any) -> None:
    b = bench(held=True, max_batch_size=2, max_queue_items=4)
    for _ in range(20):
        b.batcher.cost.observe(1.0, 0.5)
    tasks = [await b.occupy(), *(b.submit(float(n)) for n in range(4))]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as caught:
        await b.batcher.submit(items(9.0))
    assert caught.value.reason is Refusal.QUEUE_ITEMS
    assert 0.5 < caught.value.retry_after_s < 1.5  # the running batch and a quarter of the queue
    assert b.value("velatura_admission_refusals_total", reason="queue_items") == 1
    b.device.let_go(3)
    await asyncio.gather(*tasks)


async def test_queue_is_bounded_in_bytes(bench: Any) -> None:
    b = bench(held=True, max_queue_bytes=100)
    tasks = [await b.occupy(), b.submit(1.0, width=20)]
    await asyncio.sleep(0)
    assert b.batcher.queued_bytes == 80
    with pytest.raises(QueueFull) as caught:
        await b.batcher.submit(items(1.0, width=10))
    assert caught.value.reason is Refusal.QUEUE_BYTES
    b.device.let_go(2)
    await asyncio.gather(*tasks)
    assert b.batcher.queued_bytes == 0


async def test_what_can_never_fit_is_not_told_to_retry(bench: Any) -> None:
    b = bench(max_queue_items=4)
    with pytest.raises(InvalidTensor, match="at most 4 items in a request, got 5"):
        await b.batcher.submit(items(*range(5)))


async def test_hopeless_deadline_is_refused_at_arrival(bench: Any) -> None:
    b = bench(held=True)
    for _ in range(20):
        b.batcher.cost.observe(1.0, 0.5)
    running = await b.occupy()
    with pytest.raises(QueueFull) as caught:
        await b.batcher.submit(items(1.0), deadline=time.monotonic() + 0.7)
    assert caught.value.reason is Refusal.DEADLINE
    assert 0.1 < caught.value.retry_after_s < 0.5  # 0.5 s to wait and 0.5 s to run, 0.7 s of time
    enough = b.submit(1.0, deadline=time.monotonic() + 5.0)
    b.device.let_go(2)
    await asyncio.gather(running, enough)


async def test_deadline_counts_the_queue_ahead(bench: Any) -> None:
    b = bench(held=True, max_batch_size=1)
    for _ in range(20):
        b.batcher.cost.observe(1.0, 0.3)
    tasks = [await b.occupy(), *(b.submit(float(n)) for n in range(5))]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await b.batcher.submit(items(9.0), deadline=time.monotonic() + 1.5)
    b.device.let_go(6)
    await asyncio.gather(*tasks)


async def test_stale_estimate_does_not_shut_the_door(bench: Any) -> None:
    """A network that once was slow is tried again when idle, or it would be refused for ever."""
    b = bench()
    for _ in range(20):
        b.batcher.cost.observe(1.0, 60.0)
    outputs = await b.batcher.submit(items(1.0), deadline=time.monotonic() + 5.0)
    assert outputs["y"][0, 0] == 2.0
    with pytest.raises(QueueFull):  # the estimate is fresh now
        await b.batcher.submit(items(1.0), deadline=time.monotonic() + 5.0)


async def test_passed_deadline_is_no_overload(bench: Any) -> None:
    b = bench()
    with pytest.raises(DeadlineExceeded):
        await b.batcher.submit(items(1.0), deadline=time.monotonic() - 0.1)
    assert b.device.batches == []


async def test_expired_item_frees_its_place_while_the_device_is_busy(bench: Any) -> None:
    b = bench(held=True)
    running = await b.occupy()
    late = b.submit(7.0, deadline=time.monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded):
        await late
    assert b.batcher.queued_items == 0
    assert b.value("velatura_queue_dropped_total", reason="expired") == 1
    b.device.let_go()
    await running
    assert b.device.sizes == [1]


async def test_expired_item_is_not_dispatched_by_a_loop_that_was_held_up(bench: Any) -> None:
    """The deadline passes between arrival and the next turn of the loop, before its timer."""
    b = bench()
    late = b.submit(7.0, deadline=time.monotonic() + 0.05)
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251 - holding up the loop is the point
    with pytest.raises(DeadlineExceeded):
        await late
    assert b.device.sizes == []


async def test_cancelled_item_frees_its_place_at_once(bench: Any) -> None:
    b = bench(held=True, max_queue_items=1)
    running = await b.occupy()
    unwanted = b.submit(7.0)
    await asyncio.sleep(0)
    unwanted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unwanted
    wanted = b.submit(8.0)
    b.device.let_go(2)
    assert (await wanted)["y"][0, 0] == 16.0
    await running
    assert [float(batch[0, 0]) for batch in b.device.batches] == [-1.0, 8.0]


async def test_cancelling_a_running_item_leaves_its_batch_mates(bench: Any) -> None:
    b = bench(held=True)
    leaver, stayer = b.submit(1.0), b.submit(2.0)
    await until(lambda: b.device.sizes == [2])
    leaver.cancel()
    b.device.let_go()
    assert (await stayer)["y"][0, 0] == 4.0
    assert leaver.cancelled()


async def test_poisoned_item_fails_alone(bench: Any) -> None:
    b = bench()
    b.device.poison = 3.0
    results = await asyncio.gather(*(b.submit(float(n)) for n in range(6)), return_exceptions=True)
    assert isinstance(results[3], DeviceFailed)
    assert "ValueError: poisoned" in str(results[3])
    good = [float(result["y"][0, 0]) for n, result in enumerate(results) if n != 3]
    assert good == [0.0, 2.0, 4.0, 8.0, 10.0]
    assert b.device.sizes == [6, 1, 1, 1, 1, 1, 1]
    assert len(b.failures) == 2
    assert b.value("velatura_model_failures_total", reason="execution") == 2
    assert b.value("velatura_batch_closed_total", reason="retry") == 6


async def test_failing_chunk_fails_its_whole_request(bench: Any) -> None:
    b = bench(held=True, max_batch_size=2)
    b.device.poison = 0.0
    task = b.submit(*map(float, range(6)))
    await until(lambda: bool(b.device.batches))
    b.device.let_go()
    with pytest.raises(DeviceFailed):
        await task
    assert b.batcher.queued_items == 0
    assert b.device.sizes == [2]  # the other chunks would have been run for nothing


async def test_answer_for_fewer_items_is_a_failure() -> None:
    batcher = Batcher(
        "m", lambda _: {"y": np.zeros((1, 2))}, BatchLimits(), Metrics().for_model("m")
    )
    with pytest.raises(DeviceFailed, match="batch of 2"):
        await batcher.submit(items(1.0, 2.0))
    await batcher.close()


async def test_drain_finishes_what_was_accepted(bench: Any) -> None:
    b = bench(held=True, max_queue_delay_s=30.0, max_batch_size=1)
    tasks = [await b.occupy(), b.submit(1.0), b.submit(2.0)]
    await asyncio.sleep(0)
    drain = asyncio.create_task(b.batcher.drain(10.0))
    await asyncio.sleep(0.01)
    with pytest.raises(Draining):
        await b.batcher.submit(items(9.0))
    assert not drain.done()
    b.device.let_go(3)
    await drain
    assert all(task.done() and not task.exception() for task in tasks)


async def test_drain_does_not_wait_out_the_queue_delay(bench: Any) -> None:
    b = bench(max_queue_delay_s=30.0)
    task = b.submit(1.0)
    await asyncio.sleep(0.01)
    await asyncio.wait_for(b.batcher.drain(20.0), 5.0)
    assert (await task)["y"][0, 0] == 2.0


async def test_drain_limit_fails_what_still_queues(bench: Any) -> None:
    b = bench(held=True)
    running = await b.occupy()
    queued = b.submit(1.0)
    await asyncio.sleep(0)
    await b.batcher.drain(0.05)
    with pytest.raises(Draining, match=r"0\.05 s"):
        await queued
    b.device.let_go()
    assert (await running)["y"][0, 0] == -2.0
    assert b.value("velatura_queue_dropped_total", reason="drained") == 1


async def test_close_answers_everybody(bench: Any) -> None:
    b = bench(held=True)
    tasks = [await b.occupy(), b.submit(1.0)]
    await asyncio.sleep(0)
    await b.batcher.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Draining, Draining]
    with pytest.raises(Draining):
        await b.batcher.submit(items(1.0))


async def test_longest_run_is_visible(bench: Any) -> None:
    b = bench(held=True)
    assert b.batcher.longest_run_s() == 0.0
    running = await b.occupy()
    await asyncio.sleep(0.05)
    assert b.batcher.longest_run_s() > 0.04
    b.device.let_go()
    await running
    assert b.batcher.longest_run_s() == 0.0
