"""What an arriving request has ahead of it, in seconds, from the learned costs."""

from __future__ import annotations

from collections.abc import Sequence

from velatura.server.engine.admission import Load
from velatura.server.engine.gate import Gate, Member
from velatura.server.engine.lanes import Lanes
from velatura.server.engine.next_batch import Chooser
from velatura.server.engine.shape_queue import Chunk, Request, ShapeQueue
from velatura.server.engine.standing import Standing


class Forecast:
    """The estimates of one network; changes nothing."""

    def __init__(
        self, queue: ShapeQueue, lanes: Lanes, chooser: Chooser, gate: Gate, member: Member
    ) -> None:
        self._queue = queue
        self._lanes = lanes
        self._chooser = chooser
        self._gate = gate
        self._member = member

    @property
    def _parallel(self) -> int:
        """How many CPU seconds pass in a second: CPUs, or a device's places."""
        return self._gate.cpus or self._lanes.narrow.places

    def cpu_seconds(self, work: float) -> float:
        """What `work` of the queue takes, with its share of the queue's batches."""
        if not self._queue.work:
            return 0.0
        runs = self._queue.batches(self._chooser.max_items) * work / self._queue.work
        return self._lanes.cpu_seconds(work, runs)

    def drain_s(self, now: float) -> float:
        """Seconds until everything is done that now waits and runs, of all networks."""
        ahead = self._gate.cpu_seconds_ahead(now, but=self._member)
        return (ahead + self.cpu_seconds(self._queue.work)) / self._parallel

    def load(
        self, request: Request, chunks: Sequence[Chunk], now: float, own_s: float = 0.0
    ) -> Load:
        """All that admission asks about `request`, not yet queued, that is split into `chunks`;
        `own_s` CPU seconds of what is promised are its own call's.
        """
        work = sum(chunk.work for chunk in chunks)
        if not self._gate.outstanding:  # of any network: only promises are ahead
            wait = max(0.0, self._gate.promised - own_s) / self._parallel
            return Load(0, 0, wait, wait, self._lanes.soonest(work, len(chunks)), True)
        others = max(0.0, self._gate.cpu_seconds_ahead(now, but=self._member) - own_s)
        ahead = self._queue.work_ahead(request.flow, work)
        idle = not self._queue and not self._member.cpu_seconds_running(now)
        wait, run = others / self._parallel, self._lanes.soonest(work, len(chunks))
        if not idle:
            joined, run = self._batch(chunks, work, ahead)
            # What shares its batch does not have to be done before it begins.
            own = self.cpu_seconds(ahead) - self._cpu_seconds_of_items(joined)
            wait = (others + max(0.0, own)) / self._parallel
        return Load(
            queued_items=self._queue.items,
            queued_bytes=self._queue.nbytes,
            drain_s=(others + self.cpu_seconds(self._queue.work)) / self._parallel,
            wait_s=wait,
            run_s=run,
            idle=idle,
        )

    def early(self, standing: Standing, items: int, now: float) -> Load:
        """What is ahead of `items` of usual size that nobody has looked at yet, nor promised."""
        work, lane = float(items), self._lanes.narrow
        others = self._gate.cpu_seconds_ahead(now, but=self._member)
        ahead = self._queue.work_ahead((standing.priority, standing.caller), work)
        joined = min(ahead, max(0.0, self._chooser.max_items - work))
        own = max(0.0, self.cpu_seconds(ahead) - self._cpu_seconds_of_items(joined))
        idle = not others and not ahead
        return Load(
            queued_items=self._queue.items,
            queued_bytes=self._queue.nbytes,
            drain_s=(others + self.cpu_seconds(self._queue.work)) / self._parallel,
            wait_s=(others + own) / self._parallel,
            run_s=self._lanes.soonest(work, 1) if idle else lane.cost.estimate(work + joined),
            idle=idle,
        )

    def _batch(self, chunks: Sequence[Chunk], work: float, ahead: float) -> tuple[float, float]:
        """Work ahead that shares the request's batch, and the seconds of that batch."""
        lane, first = self._lanes.narrow, chunks[0]
        item = first.work / first.items
        rows = self._chooser.economical(lane, first.inputs, item)
        joined = min(ahead, max(0.0, rows * item - work))
        runs = len(chunks)
        return joined, lane.cost.estimate(work + joined, runs) / min(lane.places, runs)

    def _cpu_seconds_of_items(self, work: float) -> float:
        lane = self._lanes.narrow
        return lane.cost.a * work * max(1, lane.threads)
