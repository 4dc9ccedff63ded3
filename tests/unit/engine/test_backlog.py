"""The memory of all queues together is bounded, whatever each of them may hold."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.errors import InvalidTensor, QueueFull, Refusal
from velatura.server.engine.gate import Backlog
from velatura.server.observability.metrics import Metrics

from .benches import Device, items, until


class Two:
    """Two networks of one server; both devices hold still."""

    def __init__(self, backlog: Backlog, **limits: Any) -> None:
        self.devices = Device(held=True), Device(held=True)
        self.metrics = Metrics()
        self.batchers = [
            Batcher(
                name,
                device.run,
                BatchLimits(**limits),
                self.metrics.for_model(name),
                backlog=backlog,
            )
            for name, device in zip("ab", self.devices, strict=True)
        ]

    def submit(self, which: int, inputs: Any, **more: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.batchers[which].submit(inputs, **more))

    async def occupy(self) -> list[asyncio.Task[Any]]:
        tasks = [self.submit(which, items(0.0)) for which in (0, 1)]
        await until(lambda: all(device.batches for device in self.devices))
        return tasks

    async def close(self) -> None:
        for device, batcher in zip(self.devices, self.batchers, strict=True):
            device.let_go(99)
            await batcher.close()


async def test_bytes_of_all_networks_are_bounded() -> None:
    backlog = Backlog(max_bytes=100)
    two = Two(backlog)
    tasks = await two.occupy()
    assert backlog.nbytes == 0  # what runs does not wait
    tasks.append(two.submit(0, items(1.0, width=20)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as caught:
        await two.batchers[1].submit(items(1.0, width=10))
    assert caught.value.reason is Refusal.BACKLOG_BYTES
    assert "80 of 100 queued bytes of all networks" in str(caught.value)
    with pytest.raises(InvalidTensor, match="at most 100 bytes of all networks"):
        await two.batchers[1].submit(items(1.0, width=30))
    labels = {"model": "b", "reason": "backlog_bytes"}
    name = "velatura_admission_refusals_total"
    assert two.metrics.registry.get_sample_value(name, labels) == 2
    small = two.submit(1, items(1.0, width=5))
    await asyncio.sleep(0)
    assert backlog.nbytes == 100
    small.cancel()
    await asyncio.gather(small, return_exceptions=True)
    assert backlog.nbytes == 80
    for device in two.devices:
        device.let_go(9)
    await asyncio.gather(*tasks)
    assert (backlog.nbytes, backlog.pixels) == (0, 0)
    await two.close()


async def test_pixels_of_all_networks_are_bounded() -> None:
    backlog = Backlog(max_pixels=100)
    two = Two(backlog)
    tasks = await two.occupy()
    image = {"x": np.zeros((2, 3, 6, 7), np.float32)}  # two items of 42 pixels
    tasks.append(two.submit(0, image))
    await asyncio.sleep(0)
    assert backlog.pixels == 84
    with pytest.raises(QueueFull) as caught:
        await two.batchers[1].submit({"x": np.zeros((1, 1, 4, 5), np.float32)})
    assert caught.value.reason is Refusal.BACKLOG_PIXELS
    tasks.append(two.submit(1, items(1.0, width=1000)))  # no picture
    for device in two.devices:
        device.let_go(9)
    await asyncio.gather(*tasks)
    assert backlog.pixels == 0
    await two.close()


async def test_without_refusals_for_lateness_everything_is_tried() -> None:
    two = Two(Backlog(), refuse_late=False)
    two.batchers[0].cost.observe(1.0, 60.0)
    tasks = await two.occupy()
    late = two.submit(0, items(1.0), deadline=time.monotonic() + 5.0)
    two.devices[0].let_go(2)
    two.devices[1].let_go(1)
    await asyncio.gather(late, *tasks)
    await two.close()
