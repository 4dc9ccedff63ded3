"""The pool of threads for pixels: what runs in it and what waits is told."""

from __future__ import annotations

import asyncio
import threading

from velatura.server.observability.metrics import Metrics
from velatura.server.pipelines.workers import Workers


async def test_running_and_waiting_tasks_are_told() -> None:
    metrics = Metrics()
    workers = Workers(2, metrics.images)

    def told() -> tuple[float | None, ...]:
        names = ("threads", "tasks_running", "tasks_waiting")
        return tuple(metrics.registry.get_sample_value(f"velatura_pixel_{name}") for name in names)

    assert told() == (2, 0, 0)
    gate = threading.Event()
    tasks = [asyncio.create_task(workers.run(gate.wait, 20)) for _ in range(5)]
    await asyncio.sleep(0)
    assert told() == (2, 2, 3)
    tasks[4].cancel()
    await asyncio.gather(tasks[4], return_exceptions=True)
    assert told() == (2, 2, 2)
    gate.set()
    await asyncio.gather(*tasks[:4])
    assert told() == (2, 0, 0)
    workers.close()
