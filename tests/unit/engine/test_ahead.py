"""A run is made ready behind those that hold the CPUs: it begins while the event loop is busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.errors import DeadlineExceeded
from velatura.server.engine.gate import Gate
from velatura.server.engine.lanes import Lane
from velatura.server.observability.metrics import Metrics

Inputs = Mapping[str, NDArray[Any]]
RUN_S = 0.05


class Network:
    """Takes its time, and remembers what began when."""

    def __init__(self) -> None:
        self.began: dict[int, float] = {}

    def run(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        for number in inputs["x"].tolist():
            self.began[number] = time.monotonic()
        time.sleep(RUN_S)
        return {"y": inputs["x"]}

    def batcher(self, *lanes: Lane, cpus: int, most: int = 1) -> Batcher:
        limits = BatchLimits(max_batch_size=most)
        return Batcher("m", lanes, limits, Metrics().for_model("m"), gate=Gate(cpus))


async def begun(network: Network, number: int) -> None:
    while number not in network.began:  # noqa: ASYNC110 - a worker thread changes it
        await asyncio.sleep(0.001)


def ask(
    batcher: Batcher, number: int, deadline_s: float | None = None
) -> asyncio.Task[dict[str, NDArray[Any]]]:
    deadline = None if deadline_s is None else time.monotonic() + deadline_s
    return asyncio.create_task(batcher.submit({"x": np.array([number])}, deadline=deadline))


async def test_the_next_run_does_not_wait_for_the_loop() -> None:
    network = Network()
    batcher = network.batcher(Lane("narrow", network.run, 1, 1), cpus=1)
    first = ask(batcher, 1)
    await begun(network, 1)
    second = ask(batcher, 2)
    await asyncio.sleep(RUN_S / 5)
    time.sleep(4 * RUN_S)  # noqa: ASYNC251 - the loop is busy with something else
    back = time.monotonic()
    await asyncio.gather(first, second)
    assert network.began[2] < back - RUN_S
    assert network.began[2] >= network.began[1] + RUN_S
    await batcher.close()


async def test_one_run_is_ready_and_no_more() -> None:
    """The others keep their places in the queue, where they may share a batch."""
    network = Network()
    batcher = network.batcher(Lane("narrow", network.run, 1, 2), cpus=2)
    asked = [ask(batcher, number) for number in range(6)]
    await begun(network, 1)
    assert (batcher.running_items, batcher.queued_items) == (3, 3)
    await asyncio.gather(*asked)
    assert (batcher.running_items, batcher.queued_items, batcher.gate.used) == (0, 0, 0)
    assert (batcher.gate.runs, batcher.gate.relay.used) == (0, 0)
    await batcher.close()


async def test_behind_a_wide_run_nothing_is_made_ready() -> None:
    network = Network()
    lanes = (Lane("wide", network.run, 2, 1), Lane("narrow", network.run, 1, 2))
    batcher = network.batcher(*lanes, cpus=2)
    batcher.gate.take(2)
    asked = ask(batcher, 1)
    await asyncio.sleep(RUN_S / 5)
    assert (batcher.running_items, batcher.queued_items) == (0, 1)
    batcher.gate.give(2)
    batcher.gate.pump_soon()
    await asked
    await batcher.close()


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_who_is_gone_before_it_begins_is_not_run(how: str) -> None:
    network = Network()
    batcher = network.batcher(Lane("narrow", network.run, 1, 1), cpus=1)
    first = ask(batcher, 1)
    await begun(network, 1)
    batcher.lanes.narrow.cost.observe(1.0, 0.001)  # the estimate lets it in
    second = ask(batcher, 2, RUN_S / 2 if how == "expired" else None)
    await asyncio.sleep(RUN_S / 10)
    if batcher.running_items == 2 and how == "cancelled":
        second.cancel()
    with pytest.raises((asyncio.CancelledError, DeadlineExceeded)):
        await second
    await first
    await batcher.drain(5)
    assert 2 not in network.began
    assert (batcher.running_items, batcher.queued_items, batcher.gate.used) == (0, 0, 0)
    await batcher.close()


async def test_runs_that_end_at_once_leave_nothing_behind() -> None:
    """Some are over before the loop has even begun to look after them."""

    def run(inputs: Inputs) -> dict[str, NDArray[Any]]:
        return {"y": inputs["x"]}

    batcher = Network().batcher(Lane("narrow", run, 1, 2), cpus=2, most=4)
    for _ in range(40):
        asked = [ask(batcher, number) for number in range(25)]
        answers = await asyncio.wait_for(asyncio.gather(*asked), 20)
        assert [answer["y"].tolist() for answer in answers] == [[n] for n in range(25)]
    gate = batcher.gate
    assert (gate.used, gate.runs, gate.relay.used, gate.outstanding) == (0, 0, 0, 0)
    await batcher.close()
