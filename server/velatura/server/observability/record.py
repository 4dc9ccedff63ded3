"""What is known about one call by its end: filled in along its way, logged when it ends.

The record travels in a context variable, so that the engine, which knows nothing of calls, can add
to the record of whoever asks it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from velatura.server.observability.instruments import Exemplar
from velatura.server.observability.tracing import CallTrace

Interval = tuple[float, float]


class CallRecord:
    """Sizes, stages and batches of one call; belongs to the event loop: not for other threads.

    `trace` is there only when the call is traced, None in all others.
    """

    __slots__ = (
        "_recalled", "_stages", "batches", "bytes_in", "bytes_out", "pixels_in", "pixels_out",
        "queue_s", "trace",
    )  # fmt: skip

    def __init__(self, trace: CallTrace | None = None) -> None:
        self.trace = trace
        self.bytes_in = self.bytes_out = 0
        self.pixels_in = self.pixels_out = 0
        self.queue_s = 0.0  # in the networks' queues, summed
        self.batches: dict[str, Counter[int]] = {}
        self._recalled: set[str] = set()
        self._stages: dict[str, list[Interval]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as a stage; blocks of one name that overlap or follow each other are one
        stage. A span as well, where the call is traced.
        """
        start = time.monotonic()
        try:
            if self.trace is None:
                yield
            else:
                with self.trace.stage(name):
                    yield
        finally:
            self._stages.setdefault(name, []).append((start, time.monotonic()))

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, in the order in which the stages began."""
        stages = sorted(self._stages.items(), key=lambda item: min(item[1]))
        return {stage: _covered(intervals) * 1000 for stage, intervals in stages}

    def dispatched(self, model: str, batch_items: int, waited_s: float) -> None:
        """Something of this call went to the device, in a batch of so many items."""
        self.batches.setdefault(model, Counter())[batch_items] += 1
        self.queue_s += waited_s

    def recalled(self, cache: str) -> None:
        """A result was found in a cache."""
        self._recalled.add(cache)

    @property
    def exemplar(self) -> Exemplar:
        """What leads from a metric's sample to the trace; None where there is none."""
        return None if self.trace is None else {"trace_id": self.trace.trace_id}

    def fields(self) -> dict[str, object]:
        """For the log: what there is, and nothing of the images themselves."""
        found: dict[str, object] = {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        if self.pixels_in:
            found["pixels_in"] = self.pixels_in
        if self.pixels_out:
            found["pixels_out"] = self.pixels_out
        if self._stages:
            found["stages_ms"] = {name: round(ms, 1) for name, ms in self.timings.items()}
        if self._recalled:
            found["cached"] = sorted(self._recalled)
        if self.batches:
            found["queue_ms"] = round(self.queue_s * 1000, 1)
            # Batches by their size, which keeps a picture of a hundred tiles on the line.
            found["batches"] = {
                model: {str(size): count for size, count in sorted(sizes.items())}
                for model, sizes in self.batches.items()
            }
        return found


current_record: ContextVar[CallRecord | None] = ContextVar("current_record", default=None)


def _covered(intervals: list[Interval]) -> float:
    """Seconds that at least one of the intervals covers."""
    total, until = 0.0, 0.0
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
