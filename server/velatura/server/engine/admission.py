"""Decides at arrival whether a request can be served: room in the queues, and time until its
deadline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from velatura.server.engine.errors import (
    DeadlineExceeded,
    EngineError,
    InvalidTensor,
    QueueFull,
    Refusal,
)
from velatura.server.engine.gate import Backlog
from velatura.server.engine.lateness import NEARLY_S, Lateness
from velatura.server.engine.shape_queue import Chunk, Request

# Callers that come back sooner than this only add to the load.
MIN_RETRY_S = 0.05
# Of the time that a deadline leaves, so much is for the answer's way to its caller.
WAY_BACK = 0.04
# While calls are turned away, and for so many seconds after the last one, this share of the time is
# kept for those that come again as they were told.
KEPT_FOR_RETURNING = 0.2
KEPT_S = 1.0
# A deadline is given up before it passes only where even most of the expected time is not left:
# estimates are not that good.
SURELY = 0.8
# An idle network whose cost has not been measured for so long takes a request that by the estimate
# comes too late: else one slow phase would shut the door for ever, since only runs correct the
# estimate.
STALE_ESTIMATE_S = 1.0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of one network's batches and queue. `pad_sizes`, ascending, are the only sizes that
    batches may have; empty for any.
    """

    max_batch_size: int = 8
    max_batch_elements: int = 6_291_456  # input elements: 8 pictures of 512×512×3
    max_queue_items: int = 256
    max_queue_bytes: int = 512 * 1024 * 1024
    max_queue_delay_s: float = 0.0
    instances: int = 1
    pad_sizes: tuple[int, ...] = ()
    refuse_late: bool = True


@dataclass(frozen=True, slots=True)
class Load:
    """What is ahead of an arriving request, by the measured costs."""

    queued_items: int
    queued_bytes: int
    drain_s: float  # until all that waits and runs now, of all networks, is done
    wait_s: float  # until the request can go to the device
    run_s: float  # of the batch that it is likely to go in
    idle: bool


class NeverFits(InvalidTensor):
    """More in one request than a queue ever takes."""

    def __init__(self, reason: Refusal, model: str, expected: str, got: str) -> None:
        self.reason = reason
        super().__init__(model, "(all)", expected, got)


class Admission:
    """The doorkeeper of one network."""

    def __init__(self, model: str, limits: BatchLimits, backlog: Backlog) -> None:
        self._model = model
        self._limits = limits
        self._backlog = backlog
        self._observed = -math.inf
        self._turned_away = -math.inf  # when somebody was for the last time, for a deadline
        self.lateness = Lateness()

    def observed(self, now: float) -> None:
        """A run has just been measured."""
        self._observed = now

    def ended(self, request: Request, now: float) -> None:
        """`request`, which was let in, has been answered or given up."""
        answered = request.future.done() and not request.future.cancelled()
        if answered and request.future.exception() is None:
            self.lateness.observe(request.expected_s, now - request.arrived, now)
        elif request.deadline is not None and request.expired(now + NEARLY_S):
            self.lateness.observe(request.expected_s, math.inf, now)

    def fresh(self, now: float) -> bool:
        """Whether a run has been measured lately."""
        return now - self._observed <= STALE_ESTIMATE_S

    def check_possible(self, request: Request, chunks: Sequence[Chunk], now: float) -> None:
        """Raise what no retry of `request` as it is could ever get around."""
        if request.expired(now):
            raise DeadlineExceeded(self._model)
        for reason, unit, asked, _, limit in self._rooms(request, chunks, 0, 0):
            if asked > limit:
                raise NeverFits(
                    reason, self._model, f"at most {limit:,} {unit} in a request", f"{asked:,}"
                )

    def no_room(self, request: Request, chunks: Sequence[Chunk], load: Load) -> QueueFull | None:
        """The queue or the server's memory has no room for `request`."""
        if not load.queued_items and not self._backlog.nbytes:
            return None  # all of it is free, and `check_possible` has looked at the limits
        rooms = self._rooms(request, chunks, load.queued_items, load.queued_bytes)
        for reason, unit, asked, taken, limit in rooms:
            if taken + asked > limit:
                detail = f"{taken:,} of {limit:,} queued {unit} are taken"
                share = min(1.0, (taken + asked - limit) / max(1, taken))
                return self.full(reason, detail, share * load.drain_s)
        return None

    def _rooms(
        self, request: Request, chunks: Sequence[Chunk], items: int, nbytes: int
    ) -> Iterator[tuple[Refusal, str, int, int, int]]:
        """Every bound: reason, unit, what `request` asks for, what is taken, the limit."""
        asked = sum(chunk.nbytes for chunk in chunks)
        limits, backlog = self._limits, self._backlog
        yield Refusal.QUEUE_ITEMS, "items", request.items, items, limits.max_queue_items
        yield Refusal.QUEUE_BYTES, "bytes", asked, nbytes, limits.max_queue_bytes
        if backlog.max_bytes is not None:
            yield (
                Refusal.BACKLOG_BYTES, "bytes of all networks", asked, backlog.nbytes,
                backlog.max_bytes,
            )  # fmt: skip
        if backlog.max_pixels is not None:
            pixels = sum(chunk.pixels for chunk in chunks)
            yield (
                Refusal.BACKLOG_PIXELS, "pixels of all networks", pixels, backlog.pixels,
                backlog.max_pixels,
            )  # fmt: skip

    def check_deadline(
        self,
        deadline: float | None,
        load: Load,
        now: float,
        later_s: float = 0.0,
        *,
        returning: bool = False,
    ) -> None:
        """Raise QueueFull where the deadline cannot be met behind what is ahead, with `later_s`
        seconds of the call's other networks after this one. Who is `returning` as told may have
        time that is kept from others while some are turned away.
        """
        if deadline is None or not self._limits.refuse_late:
            return
        if load.idle and not self.fresh(now):
            return
        left = deadline - now
        # An idle network's run is all there is to estimate; the longer the way, the rougher.
        sure, kept = left, 0.0
        if not load.idle or load.wait_s:
            sure = left * (1.0 - WAY_BACK) / self.lateness.factor(now)
            if not returning and now - self._turned_away < KEPT_S:
                kept = KEPT_FOR_RETURNING * sure
        run_s = load.run_s + later_s
        missing = load.wait_s + run_s - sure
        if missing + kept <= 0.0:
            return
        self._turned_away = now
        detail = (
            f"about {load.wait_s:.3f} s of waiting and {run_s:.3f} s of running do not fit "
            f"into the {left:.3f} s that the deadline leaves"
        )
        if missing <= 0.0:
            detail += f", {kept:.3f} s of which are kept for calls that come again as told"
        # Sent again with as much time, it fits once the queue is shorter by what was missing now.
        raise self.full(Refusal.DEADLINE, detail, min(load.wait_s, missing))

    def hopeless(self, left: float, run_s: float, now: float) -> QueueFull | None:
        """Why a request that waits with `left` seconds should be given up for the others' sake."""
        sure = self._limits.refuse_late and self.fresh(now)
        if not sure or SURELY * run_s <= left:
            return None
        detail = f"{left:.3f} s are left for a run of {run_s:.3f} s"
        return self.full(Refusal.DEADLINE, detail, run_s - left)

    def full(self, reason: Refusal, detail: str, retry_after_s: float) -> QueueFull:
        """A refusal that says when to come back."""
        return QueueFull(self._model, max(MIN_RETRY_S, retry_after_s), reason, detail)

    @staticmethod
    def reason_of(error: EngineError) -> Refusal:
        """The label of a refusal."""
        match error:
            case QueueFull() | NeverFits():
                return error.reason
            case DeadlineExceeded():
                return Refusal.EXPIRED
            case _:
                return Refusal.DRAINING
