"""What one request carries through its pipeline: the engine, the pool, its deadline, and its
bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

from numpy.typing import NDArray

from velatura.server.engine.engine import Engine
from velatura.server.engine.memo import Memo
from velatura.server.engine.promise import Promise, Stages
from velatura.server.engine.standing import current_standing
from velatura.server.observability.record import CallRecord
from velatura.server.pipelines.caches import Caches
from velatura.server.pipelines.workers import Workers
from velatura.v1.bundle_pb2 import ModelEntry

P = ParamSpec("P")
T = TypeVar("T")

# As many pixels (128×128) take about a millisecond in any of a pipeline's steps. The loop can be
# held for that long where another thread would have to take a CPU from somebody first: handing
# over and back would only add to it.
FEW_PIXELS = 1 << 14


class Job:
    """One request on its way.

    `deadline` is in `time.monotonic()` seconds, None for no limit. `models` collects every network
    that took part, `record` the time and the sizes of each stage. Results are shared through
    `caches` with other requests of the same `tenant`, and with nobody else's.
    """

    def __init__(
        self,
        engine: Engine,
        workers: Workers,
        deadline: float | None = None,
        record: CallRecord | None = None,
        caches: Caches | None = None,
        tenant: bytes = b"",
    ) -> None:
        self.engine = engine
        self.caches = caches or Caches()
        self.deadline = deadline
        self.record = record or CallRecord()
        self._workers = workers
        self.picture_bytes = 0  # of the largest picture in the request, as it came
        self._reserved: Promise | None = None
        self._pixels_s: list[float] = []  # CPU seconds of what was computed on pixels
        self._tenant = tenant
        self._models: dict[str, ModelEntry] = {}

    @property
    def models(self) -> list[ModelEntry]:
        """Networks that took part, by name: who came first may differ from call to call."""
        return [self._models[name] for name in sorted(self._models)]

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, in the order in which the stages began."""
        return self.record.timings

    def __enter__(self) -> Job:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._reserved is not None:
            self._reserved.release(error, sum(self._pixels_s))

    def reserve(self, stages: Stages) -> None:
        """Have the call let in, or turned away by the engine's errors, before anything is spent on
        it. Only within the job's own `with` block, which ends the reservation.
        """
        if stages and self._reserved is None:
            self._reserved = self.engine.reserve(stages, self.deadline, nbytes=self.picture_bytes)

    def promise(self, stages: Stages) -> AbstractContextManager[None]:
        """See `Engine.promise`. It is kept until the job's own `with` block ends: how long a call
        took shows when its answer is written.
        """
        if self._reserved is None:
            self._reserved = self.engine.reserve(
                stages, self.deadline, nbytes=self.picture_bytes, admit=False
            )
        return self.engine.promise(stages, self._reserved)

    async def infer(
        self, stage: str, model: str, inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Run a network on arrays that lead with the batch axis; raises the engine's errors."""
        with self.record.stage(stage):
            outputs = await self.engine.run(model, inputs, deadline=self.deadline)
        self._took_part(model)
        return outputs

    async def recall(
        self,
        memo: Memo[T],
        stage: str,
        model: str,
        key: tuple[Hashable, ...],
        compute: Callable[[], Coroutine[Any, Any, T]],
    ) -> T:
        """What is kept of an earlier run of `model`, or else the result of `compute`, which is then
        kept, and shared with all who ask for it meanwhile.

        `key` holds everything besides the network that the result depends on.
        """
        found = self.kept(memo, stage, model, key)
        if found is None:
            found = await self.share(memo, stage, model, key, compute, keep=True)
        return found

    def kept(self, memo: Memo[T], stage: str, model: str, key: tuple[Hashable, ...]) -> T | None:
        """What is kept of an earlier run of `model` (or of no network, where it is ""): a `stage`
        that took no time.
        """
        found = memo.peek(self._key(model, key))
        if found is not None:
            with self.record.stage(stage):
                self.record.recalled(memo.name)
            self._took_part(model)
        return found

    def costs_a_run(self, memo: Memo[T], model: str, key: tuple[Hashable, ...]) -> bool:
        """Whether `recall` would have to run `model`, rather than find or share its result."""
        return not memo.there(self._key(model, key), _sharing(None))

    def keep(self, memo: Memo[T], model: str, key: tuple[Hashable, ...], value: T) -> None:
        """Keep a result of `model`."""
        memo.put(self._key(model, key), value)

    async def share(
        self,
        memo: Memo[T],
        stage: str,
        model: str,
        key: tuple[Hashable, ...],
        compute: Callable[[], Coroutine[Any, Any, T]],
        *,
        variant: Hashable = None,
        keep: bool = False,
    ) -> T:
        """The result of `compute`, computed once for all who ask for it at the same time, with the
        same urgency, and in the same `variant`; waiting for somebody else's is timed as `stage`.
        """
        whole, variant = self._key(model, key), _sharing(variant)
        waiting = memo.in_progress(whole, variant)
        with self.record.stage(stage) if waiting else nullcontext():
            value = await memo.compute(
                whole, compute, deadline=self.deadline, what=model, variant=variant, keep=keep
            )
        self._took_part(model)
        return value

    def _key(self, model: str, key: tuple[Hashable, ...]) -> Hashable:
        made_by = self.engine.bundle.model(model).sha256 if model else ""
        return (self._tenant, made_by, *key)

    def _took_part(self, model: str) -> None:
        if model:
            self._models.setdefault(model, self.engine.bundle.model(model))

    async def compute(
        self, stage: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function on pixels in the pool, as a stage."""
        with self.record.stage(stage):
            return await self._workers.run(lambda: self._timed(function, *args, **kwargs))

    async def compute_few(
        self,
        stage: str,
        pixels: int,
        function: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `compute`, for a function whose time goes with `pixels`: few of them are worked on
        right here, on the loop's thread, where no other thread would be quicker.
        """
        if pixels > FEW_PIXELS or self.engine.leaves_cpus:
            return await self.compute(stage, function, *args, **kwargs)
        with self.record.stage(stage):
            return self._timed(function, *args, **kwargs)

    def _timed(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        start = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            self._pixels_s.append(time.thread_time() - start)


def _sharing(variant: Hashable) -> Hashable:
    """Who may share a computation: an urgent call must not wait for one that may wait."""
    return (variant, current_standing.get().priority)
