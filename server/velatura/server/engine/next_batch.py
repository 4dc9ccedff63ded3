"""Chooses what one network runs next: which requests, how many together, and in which lane.

Plain decisions over the queue and the learned costs; the batcher carries them out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batch_watch import Closed
from velatura.server.engine.gate import Gate
from velatura.server.engine.lanes import Lane, Lanes
from velatura.server.engine.shape_queue import Chunk, ShapeQueue, Tensors

# Runs side by side may together hold so many batches' elements: activations grow with them.
SIDE_BY_SIDE_BATCHES = 2


@dataclass(frozen=True, slots=True)
class NextBatch:
    """What goes to the device, where, and what closed it."""

    chunks: list[Chunk]
    reason: Closed
    lane: Lane


class Chooser:
    """Looks at one network's queue; changes nothing."""

    def __init__(self, queue: ShapeQueue, lanes: Lanes, limits: BatchLimits, gate: Gate) -> None:
        self._queue = queue
        self._lanes = lanes
        self._limits = limits
        self._gate = gate
        # Larger batches than the largest allowed size would not be padded.
        self.max_items = min([limits.max_batch_size, *limits.pad_sizes[-1:]])

    def rows(self, inputs: Tensors) -> int:
        """Items that fit one batch, by count and by elements, at least one."""
        per_item = sum(array[:1].size for array in inputs.values())
        by_elements = self._limits.max_batch_elements // max(1, per_item)
        return max(1, min(self.max_items, by_elements))

    def economical(self, lane: Lane, inputs: Tensors, work: float) -> int:
        """Items of `work` each that a batch in `lane` should hold at most."""
        rows = self.rows(inputs)
        return padded_down(lane.cost.economical(rows, work), rows, self._limits.pad_sizes)

    def due(self, now: float, hurry: bool) -> tuple[Chunk | None, Closed, float]:
        """The head whose batch is due, why, and when; without one, when the first will be (infinity
        for an empty queue). `hurry` waits for nobody.
        """
        wake = math.inf
        for head in self._queue.heads(now):
            reason, moment = self._closing(head, hurry)
            if moment <= now:
                return head, reason, moment
            wake = min(wake, moment)
        return None, Closed.DEVICE_FREE, wake

    def _closing(self, head: Chunk, hurry: bool) -> tuple[Closed, float]:
        """What closes the batch that `head` leads, and when."""
        arrived = head.request.arrived
        if head.alone:
            return Closed.RETRY, arrived
        delay = self._limits.max_queue_delay_s
        if delay <= 0.0 or hurry:
            return Closed.DEVICE_FREE, arrived
        picked = self._queue.pick(head, self.max_items, self._limits.max_batch_elements)
        if sum(chunk.items for chunk in picked) >= self.rows(head.inputs):
            return Closed.FULL, arrived
        latest = arrived + delay
        if head.request.deadline is not None:  # waiting for company must not cost the deadline
            in_time = head.request.deadline - 2.0 * self._lanes.narrow.cost.estimate(head.work)
            if in_time < latest:
                return Closed.DEADLINE, in_time
        return Closed.DELAY, latest

    def choose(self, now: float, hurry: bool, running_elements: int) -> NextBatch | None:
        """The next batch; None where nothing is due or no lane can begin a run."""
        head, reason, _ = self.due(now, hurry)
        if head is None:
            return None
        most = SIDE_BY_SIDE_BATCHES * self._limits.max_batch_elements
        if running_elements and running_elements + head.elements > most:
            return None
        rows = self.rows(head.inputs)
        lane = self._lanes.choose(
            demand=self._gate.demand(),
            item=self._queue.items / len(self._queue),
            work=self._queue.work / len(self._queue),
            rows=rows,
            cpus_free=self._gate.free,
            now=now,
        )
        lane = lane or self.lane_ahead()
        if lane is None:
            return None
        if reason is Closed.RETRY:
            return NextBatch([head], reason, lane)
        if len(self._queue) == 1:  # nothing to choose from
            return NextBatch([head], Closed.FULL if head.items >= rows else reason, lane)
        return self._filled(head, reason, lane, rows, now)

    def lane_ahead(self) -> Lane | None:
        """The lane that may have one run more than it has places for, ready to begin."""
        lane = self._lanes.narrow
        ready = lane.running <= lane.places and self._gate.lets_ahead(lane.threads)
        return lane if ready else None

    def _filled(self, head: Chunk, reason: Closed, lane: Lane, rows: int, now: float) -> NextBatch:
        """The batch that `head` leads in `lane`, as large as it should be."""
        economical = share = rows
        if self._limits.max_queue_delay_s <= 0.0:  # else full batches are what was waited for
            economical = self.economical(lane, head.inputs, head.work / head.items)
            share = math.ceil(self._queue.waiting_in(head.bucket) / self._places(lane))
        tight = False

        def in_time(picked: Sequence[Chunk], chunk: Chunk) -> bool:
            nonlocal tight
            end = now + lane.cost.estimate(sum(each.work for each in picked) + chunk.work)
            each_deadline = (each.request.deadline for each in (*picked, chunk))
            if all(deadline is None or end <= deadline for deadline in each_deadline):
                return True
            tight = True
            return False

        picked = self._queue.pick(
            head,
            max(1, min(economical, share)),
            self._limits.max_batch_elements,
            in_time,
        )
        items = sum(chunk.items for chunk in picked)
        if items >= rows:
            reason = Closed.FULL
        elif reason is Closed.DEVICE_FREE and len(picked) < len(self._queue):
            left = self._queue.waiting_in(head.bucket) > items
            if left and tight:
                reason = Closed.DEADLINE
            elif left and economical <= share and items >= economical:
                reason = Closed.COST
            elif not left or items < share:
                reason = Closed.SHAPE
        return NextBatch(picked, reason, lane)

    def _places(self, lane: Lane) -> int:
        """Runs of `lane` that the waiting can be shared by."""
        if not lane.threads:
            return max(1, lane.free)
        return max(1, min(lane.free, self._gate.free_cpus // lane.threads))


def padded_down(items: int, most: int, sizes: Sequence[int]) -> int:
    """`items` filled up to an allowed size, since padding costs as much as items; or `most`."""
    return min(most, next((size for size in sizes if size >= items), items))
