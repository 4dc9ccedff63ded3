"""Decides at arrival whether a request can be served: room in the queue, and time until its
deadline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from velatura.server.engine.cost import CostModel
from velatura.server.engine.errors import (
    DeadlineExceeded,
    EngineError,
    InvalidTensor,
    QueueFull,
    Refusal,
)
from velatura.server.engine.shape_queue import Chunk, Request

# Callers that come back sooner than this only add to the load.
MIN_RETRY_S = 0.05
# An idle network whose cost has not been measured for so long takes a request that by the estimate
# comes too late: else one slow phase would shut the door for ever, since only runs correct the
# estimate.
STALE_ESTIMATE_S = 1.0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of one network's batches and queue."""

    max_batch_size: int = 8
    max_batch_elements: int = 6_291_456  # input elements: 8 pictures of 512×512×3
    max_queue_items: int = 256
    max_queue_bytes: int = 512 * 1024 * 1024
    max_queue_delay_s: float = 0.0
    instances: int = 1


@dataclass(frozen=True, slots=True)
class Load:
    """What is ahead of an arriving request."""

    queued_items: int
    queued_bytes: int
    queued_work: float
    queued_batches: int
    running_s: float  # expected seconds to the end of all running batches, summed
    idle: bool


class Admission:
    """The doorkeeper of one network."""

    def __init__(self, model: str, limits: BatchLimits, cost: CostModel) -> None:
        self._model = model
        self._limits = limits
        self._cost = cost
        self._observed = -math.inf

    def observed(self, now: float) -> None:
        """A run has just been measured."""
        self._observed = now

    def refusal(
        self, request: Request, chunks: Sequence[Chunk], load: Load, now: float
    ) -> tuple[Refusal, EngineError] | None:
        """Why `request` cannot be taken, as a label and an error; None where it can."""
        if request.expired(now):
            return Refusal.EXPIRED, DeadlineExceeded(self._model)
        nbytes = sum(chunk.nbytes for chunk in chunks)
        for reason, unit, asked, queued, limit in (
            (
                Refusal.QUEUE_ITEMS,
                "items",
                request.items,
                load.queued_items,
                self._limits.max_queue_items,
            ),
            (Refusal.QUEUE_BYTES, "bytes", nbytes, load.queued_bytes, self._limits.max_queue_bytes),
        ):
            if asked > limit:  # no retry would ever help
                return reason, InvalidTensor(
                    self._model, "(all)", f"at most {limit:,} {unit} in a request", f"{asked:,}"
                )
            if queued + asked > limit:
                detail = f"{queued:,} of {limit:,} queued {unit} are taken"
                share = (queued + asked - limit) / queued
                return reason, self._full(reason, detail, self._time_to_free(share, load))
        return self._too_late(request, chunks, load, now)

    def _too_late(
        self, request: Request, chunks: Sequence[Chunk], load: Load, now: float
    ) -> tuple[Refusal, EngineError] | None:
        if request.deadline is None:
            return None
        if load.idle and now - self._observed > STALE_ESTIMATE_S:
            return None
        left = request.deadline - now
        wait = self._time_to_free(1.0, load)
        parallel = min(self._limits.instances, len(chunks))
        run = self._cost.estimate(sum(chunk.work for chunk in chunks), len(chunks)) / parallel
        if wait + run <= left:
            return None
        detail = (
            f"about {wait:.3f} s of waiting and {run:.3f} s of running do not fit into "
            f"the {left:.3f} s that the deadline leaves"
        )
        # Sent again with as much time, it fits once the queue is shorter by what was missing now.
        return Refusal.DEADLINE, self._full(Refusal.DEADLINE, detail, min(wait, wait + run - left))

    def _time_to_free(self, share: float, load: Load) -> float:
        """Seconds until `share` (0..1] of the queue is on the device, after what runs there now."""
        queued = self._cost.estimate(
            load.queued_work * share, math.ceil(load.queued_batches * share)
        )
        return (load.running_s + queued) / self._limits.instances

    def _full(self, reason: Refusal, detail: str, retry_after_s: float) -> QueueFull:
        return QueueFull(self._model, max(MIN_RETRY_S, retry_after_s), reason, detail)
