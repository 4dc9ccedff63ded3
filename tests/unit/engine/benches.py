"""A batcher over a device that a test holds still and lets go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.errors import DeviceFailed
from velatura.server.observability.metrics import Metrics


class Device:
    """Doubles its input, one run at a time for each `let_go`; open from the start unless `held`."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[NDArray[Any]] = []
        self.gate = threading.Semaphore(0)
        self.held = held
        self.poison: float | None = None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.batches.append(inputs["x"])
        if self.held and not self.gate.acquire(timeout=20):
            raise TimeoutError("the test never let go")
        if self.poison is not None and (inputs["x"] == self.poison).any():
            raise ValueError("poisoned")
        return {"y": inputs["x"] * 2}

    def let_go(self, runs: int = 1) -> None:
        self.gate.release(runs)

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


def items(*values: float, width: int = 2) -> dict[str, NDArray[Any]]:
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}


class Bench:
    """A batcher over a device, and its metrics."""

    def __init__(self, device: Device, **limits: Any) -> None:
        self.device = device
        self.metrics = Metrics()
        self.failures: list[DeviceFailed] = []
        self.batcher = Batcher(
            "m",
            device.run,
            BatchLimits(**limits),
            self.metrics.for_model("m"),
            on_failure=self.failures.append,
        )

    def submit(self, *values: float, width: int = 2, **more: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.batcher.submit(items(*values, width=width), **more))

    async def occupy(self) -> asyncio.Task[Any]:
        """Put one item on the held device, so that everything after it queues."""
        task = self.submit(-1.0)
        await until(lambda: bool(self.device.batches))
        return task

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"model": "m", **labels}) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a worker thread changes it
            await asyncio.sleep(0.001)
