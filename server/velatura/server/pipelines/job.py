"""What one request carries through its pipeline: the engine, the pool, its deadline, and its
bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from numpy.typing import NDArray

from velatura.server.engine.engine import Engine
from velatura.server.pipelines.workers import Workers
from velatura.v1.bundle_pb2 import ModelEntry

P = ParamSpec("P")
T = TypeVar("T")


class Job:
    """One request on its way.

    `deadline` is in `time.monotonic()` seconds, None for no limit. `models` collects every network
    that ran, `timings` the wall time that was spent in each stage.
    """

    def __init__(self, engine: Engine, workers: Workers, deadline: float | None = None) -> None:
        self.engine = engine
        self.deadline = deadline
        self._workers = workers
        self._models: dict[str, ModelEntry] = {}
        self._spans: dict[str, list[tuple[float, float]]] = {}

    @property
    def models(self) -> list[ModelEntry]:
        """Networks that took part, in the order of their first run."""
        return list(self._models.values())

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, in the order in which the stages began."""
        stages = sorted(self._spans.items(), key=lambda item: min(item[1]))
        return {stage: _covered(spans) * 1000 for stage, spans in stages}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as a stage; blocks of one name that overlap or follow each other are one
        stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._spans.setdefault(name, []).append((start, time.monotonic()))

    async def infer(
        self, stage: str, model: str, inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Run a network on arrays that lead with the batch axis; raises the engine's errors."""
        with self.stage(stage):
            outputs = await self.engine.run(model, inputs, deadline=self.deadline)
        self._models.setdefault(model, self.engine.bundle.model(model))
        return outputs

    async def compute(
        self, stage: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function on pixels in the pool, as a stage."""
        with self.stage(stage):
            return await self._workers.run(function, *args, **kwargs)


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that at least one of the spans covers."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
