"""What one request carries through its pipeline: the engine, the pool, its deadline, and its
bookkeeping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from numpy.typing import NDArray

from velatura.server.engine.engine import Engine
from velatura.server.observability.record import CallRecord
from velatura.server.pipelines.workers import Workers
from velatura.v1.bundle_pb2 import ModelEntry

P = ParamSpec("P")
T = TypeVar("T")


class Job:
    """One request on its way.

    `deadline` is in `time.monotonic()` seconds, None for no limit. `models` collects every network
    that ran, `record` the time and the sizes of each stage.
    """

    def __init__(
        self,
        engine: Engine,
        workers: Workers,
        deadline: float | None = None,
        record: CallRecord | None = None,
    ) -> None:
        self.engine = engine
        self.deadline = deadline
        self.record = record or CallRecord()
        self._workers = workers
        self._models: dict[str, ModelEntry] = {}

    @property
    def models(self) -> list[ModelEntry]:
        """Networks that took part, in the order of their first run."""
        return list(self._models.values())

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, in the order in which the stages began."""
        return self.record.timings

    async def infer(
        self, stage: str, model: str, inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Run a network on arrays that lead with the batch axis; raises the engine's errors."""
        with self.record.stage(stage):
            outputs = await self.engine.run(model, inputs, deadline=self.deadline)
        self._models.setdefault(model, self.engine.bundle.model(model))
        return outputs

    async def compute(
        self, stage: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function on pixels in the pool, as a stage."""
        with self.record.stage(stage):
            return await self._workers.run(function, *args, **kwargs)
