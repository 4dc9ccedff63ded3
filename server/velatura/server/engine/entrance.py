"""The door of one network's queue: lets requests in, turns them away, and counts whom it does not
let in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from velatura.server.engine.admission import Admission, Load
from velatura.server.engine.errors import Draining, EngineError, QueueFull, Refusal
from velatura.server.engine.forecast import Forecast
from velatura.server.engine.lateness import Lateness
from velatura.server.engine.promise import Turn
from velatura.server.engine.shape_queue import Chunk, Request, ShapeQueue
from velatura.server.engine.standing import current_standing
from velatura.server.observability.model_metrics import ModelMetrics


class Entrance:
    """`turn_out` takes a request out of the queue again, for the sake of one with more right to its
    place.
    """

    def __init__(
        self,
        queue: ShapeQueue,
        forecast: Forecast,
        admission: Admission,
        metrics: ModelMetrics,
        turn_out: Callable[[Request, QueueFull], None],
    ) -> None:
        self.closed = ""  # why nobody is let in any more
        self._queue = queue
        self._forecast = forecast
        self._admission = admission
        self._metrics = metrics
        self._turn_out = turn_out

    def admit_early(
        self, items: int, deadline: float | None, later_s: float
    ) -> tuple[Lateness, float]:
        """Let a call in that is going to bring `items`, and to spend `later_s` seconds after them,
        before anything is spent on it; raises QueueFull.

        Returns what is to be told how long the call took, and the seconds that are expected.
        """
        now = time.monotonic()
        standing = current_standing.get()
        load = self._forecast.early(standing, items, now)
        try:
            self._admission.check_deadline(
                deadline, load, now, later_s, returning=standing.returning
            )
        except QueueFull as error:
            self._metrics.refused(error.reason)
            raise
        return self._admission.lateness, load.wait_s + load.run_s + later_s

    def admit(
        self,
        request: Request,
        chunks: Sequence[Chunk],
        turn: Turn,
        deadline: float | None,
        now: float,
    ) -> None:
        """Let `request` in, which comes as `chunks` in a call with such a deadline; raises what
        `Batcher.submit` does.
        """
        try:
            if self.closed:
                raise Draining(self.closed)
            self._admission.check_possible(request, chunks, now)
            load = self._forecast.load(request, chunks, now, turn.promised_cpu_s)
            if not turn.later:
                later_s = deadline - request.deadline if deadline and request.deadline else 0.0
                returning = current_standing.get().returning
                self._admission.check_deadline(deadline, load, now, later_s, returning=returning)
            load = self._with_room(request, chunks, turn, load, now)
        except EngineError as error:
            self._metrics.refused(self._admission.reason_of(error))
            raise
        request.expected_s = load.wait_s + load.run_s
        if turn.promise is not None:
            expected_s = request.expected_s + turn.ahead_s
            turn.promise.admitted(self._admission.lateness, expected_s, deadline)

    def left(self, request: Request, turn: Turn) -> None:
        """`request`, which was let in, has its answer, or has been given up."""
        if turn.promise is None:  # else there is the whole call to learn from
            self._admission.ended(request, time.monotonic())

    def _with_room(
        self, request: Request, chunks: Sequence[Chunk], turn: Turn, load: Load, now: float
    ) -> Load:
        """What is ahead of `request` once there is room for it."""
        while full := self._admission.no_room(request, chunks, load):
            if not self._displace(request, full):
                raise full
            load = self._forecast.load(request, chunks, now, turn.promised_cpu_s)
        return load

    def _displace(self, request: Request, full: QueueFull) -> bool:
        """Turn away somebody else's request where `request` has more right to its place."""
        of_this_queue = full.reason in (Refusal.QUEUE_ITEMS, Refusal.QUEUE_BYTES)
        victim = self._queue.displaceable(request) if of_this_queue else None
        if victim is not None:
            self._turn_out(victim, full)
        return victim is not None
