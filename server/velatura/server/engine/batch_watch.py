"""What happens to the requests of one network, told to the metrics, to the calls' records and to
the traces of those calls that are traced."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.cost import CostModel
from velatura.server.engine.errors import Refusal
from velatura.server.engine.shape_queue import Chunk, Request
from velatura.server.observability.instruments import Exemplar
from velatura.server.observability.model_metrics import ModelMetrics
from velatura.server.observability.record import current_record
from velatura.server.observability.tracing import BatchTrace

DROPPED = ("cancelled", "expired", "failed", "drained")


class Closed(StrEnum):
    """What closed a batch: the label of velatura_batch_closed_total."""

    FULL = "full"
    DEVICE_FREE = "device_free"
    DELAY = "delay"
    DEADLINE = "deadline"  # the delay, cut short for the head's deadline
    SHAPE = "shape"  # the device was free, and what else waited had other shapes or was too large
    RETRY = "retry"


class BatchWatch:
    """Belongs to one batcher, on its event loop."""

    def __init__(self, metrics: ModelMetrics, limits: BatchLimits, cost: CostModel) -> None:
        self._metrics = metrics
        self._cost = cost
        metrics.declare(Closed, Refusal, DROPPED)
        metrics.limits(limits.max_batch_size, limits.max_queue_items, limits.instances)
        metrics.cost(cost.a, cost.b)

    def arrived(self, request: Request) -> None:
        """A request is about to queue; call it in the caller's task."""
        request.record = current_record.get()
        if request.record is not None and request.record.trace is not None:
            request.trace = request.record.trace.request()

    def dispatched(
        self, chunks: Sequence[Chunk], items: int, reason: str, now: float
    ) -> BatchTrace | None:
        """A batch goes to the device; its trace where one of its requests is traced."""
        self._metrics.closed(reason, items)
        traced = False
        for chunk in chunks:
            request, waited = chunk.request, now - chunk.request.arrived
            self._metrics.waited(waited, exemplar_of(chunk))
            if request.record is not None:
                request.record.dispatched(self._metrics.model, items, waited)
            traced = traced or request.trace is not None
        return self._traced(chunks, items, reason) if traced else None

    def ran(self, chunks: Sequence[Chunk], seconds: float) -> None:
        """A batch has come back with an answer, and its cost has been learned."""
        exemplar = next((found for chunk in chunks if (found := exemplar_of(chunk))), None)
        self._metrics.ran(seconds, exemplar)
        self._metrics.cost(self._cost.a, self._cost.b)

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
