"""What happens to the requests of one network, told to the metrics, to the calls' records and to
the traces of those calls that are traced."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.errors import Refusal
from velatura.server.engine.lanes import Lane, Lanes
from velatura.server.engine.lateness import Lateness
from velatura.server.engine.shape_queue import Chunk, Request
from velatura.server.observability.instruments import Exemplar
from velatura.server.observability.model_metrics import ModelMetrics
from velatura.server.observability.record import current_record
from velatura.server.observability.tracing import BatchTrace

DROPPED = ("cancelled", "expired", "failed", "drained", "late", "displaced")


class Closed(StrEnum):
    """What closed a batch: the label of velatura_batch_closed_total."""

    FULL = "full"
    DEVICE_FREE = "device_free"
    DELAY = "delay"
    DEADLINE = "deadline"  # cut short for a deadline in it: the delay, or the size
    COST = "cost"  # one more item would not have made the others cheaper
    SHAPE = "shape"  # the device was free, and what else waited had other shapes or was too large
    RETRY = "retry"


class BatchWatch:
    """Belongs to one batcher, on its event loop."""

    def __init__(
        self, metrics: ModelMetrics, limits: BatchLimits, lanes: Lanes, lateness: Lateness
    ) -> None:
        self._metrics = metrics
        # Under load the narrow lane runs, and load is what capacity is planned from.
        cost, places = lanes.narrow.cost, lanes.narrow.places
        metrics.declare(Closed, Refusal, DROPPED, [lane.name for lane in lanes])
        metrics.limits(limits.max_batch_size, limits.max_queue_items, places)
        metrics.learned(lambda: cost.a, lambda: cost.b, lambda: lateness.factor(time.monotonic()))

    def arrived(self, request: Request) -> None:
        """A request is about to queue; call it in the caller's task."""
        request.record = current_record.get()
        if request.record is not None and request.record.trace is not None:
            request.trace = request.record.trace.request()

    def dispatched(
        self, chunks: Sequence[Chunk], items: int, reason: str, lane: Lane, now: float
    ) -> BatchTrace | None:
        """A batch goes to the device; its trace where one of its requests is traced."""
        self._metrics.closed(reason, items)
        self._metrics.lane(lane.name)
        traced = False
        for chunk in chunks:
            request, waited = chunk.request, now - chunk.request.arrived
            self._metrics.waited(waited, exemplar_of(chunk))
            if request.record is not None:
                request.record.dispatched(self._metrics.model, items, waited)
            traced = traced or request.trace is not None
        return self._traced(chunks, items, reason) if traced else None

    def ran(self, chunks: Sequence[Chunk], seconds: float, padding: int) -> None:
        """A batch has come back with an answer, and its cost has been learned; `padding` items of
        it were nobody's.
        """
        self._metrics.padded(padding)
        exemplar = next((found for chunk in chunks if (found := exemplar_of(chunk))), None)
        self._metrics.ran(seconds, exemplar)

    def dropped(self, request: Request, reason: str, items: int) -> None:
        """A request's last items have left the queue without a run."""
        self._metrics.dropped(reason, items)
        if request.trace is not None:
            request.trace.waited(self._metrics.model, items, request.arrived, lost=reason)

    def _traced(self, chunks: Sequence[Chunk], items: int, reason: str) -> BatchTrace:
        found = []
        for chunk in chunks:
            request = chunk.request
            if request.trace is not None:
                request.trace.waited(self._metrics.model, chunk.items, request.arrived)
                found.append(request.trace)
        return BatchTrace(self._metrics.model, reason, items, found)


def exemplar_of(chunk: Chunk) -> Exemplar:
    """The trace that a sample of this chunk belongs to."""
    record = chunk.request.record
    return None if record is None else record.exemplar
