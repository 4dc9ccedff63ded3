"""Dynamic batching for one network: what queues up while the device is busy goes to it together.

The event loop's thread owns the queue and all bookkeeping; worker threads only concatenate and run.
An idle device never waits for company unless `max_queue_delay_s` says so. Requests share a batch
only when all their shapes agree, and never share a fate: a batch that fails is run again item by
item.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from velatura.server.engine.admission import Admission, BatchLimits
from velatura.server.engine.answers import deliver, joined
from velatura.server.engine.batch_watch import BatchWatch
from velatura.server.engine.cost import CostModel
from velatura.server.engine.crew import Crew
from velatura.server.engine.entrance import Entrance
from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    Draining,
    EngineError,
    FailureKind,
)
from velatura.server.engine.execution import Ran, execute, guarded_run, outcome_of
from velatura.server.engine.forecast import Forecast
from velatura.server.engine.gate import Backlog, Gate
from velatura.server.engine.lanes import Lane, Lanes, Run, single
from velatura.server.engine.next_batch import Chooser, NextBatch
from velatura.server.engine.promise import ALONE, Turn
from velatura.server.engine.running import Batch, Running
from velatura.server.engine.shape_queue import Chunk, Request, ShapeQueue, Tensors, split
from velatura.server.engine.solitude import Solitude
from velatura.server.engine.standing import Priority, current_standing
from velatura.server.engine.thread_names import RUNS
from velatura.server.engine.waiting import Waiting
from velatura.server.observability.model_metrics import ModelMetrics


class Batcher:
    """The scheduler of one network. Build and use it on one event loop.

    `run` is called on its own threads: one function, `limits.instances` of it at a time, or lanes.
    `gate` is shared by the networks of one machine, `backlog` by those of one server.
    """

    def __init__(
        self,
        model: str,
        run: Run | Sequence[Lane],
        limits: BatchLimits,
        metrics: ModelMetrics,
        *,
        cost: CostModel | None = None,
        gate: Gate | None = None,
        backlog: Backlog | None = None,
        on_success: Callable[[], None] = lambda: None,
        on_failure: Callable[[DeviceFailed], None] = lambda _: None,
    ) -> None:
        self.model = model
        self.lanes = Lanes(single(run, limits.instances, cost) if callable(run) else run)
        self._limits = limits
        self._metrics = metrics
        self._on_success = on_success
        self._on_failure = on_failure
        self._queue = ShapeQueue()
        self._running = Running()
        self.gate = gate or Gate()
        self._solitude = Solitude(self.gate)
        backlog = backlog or Backlog()
        self._waiting = Waiting(self._queue, backlog, self.gate, self)
        self._admission = Admission(model, limits, backlog)
        self._watch = BatchWatch(metrics, limits, self.lanes, self._admission.lateness)
        self._chooser = Chooser(self._queue, self.lanes, limits, self.gate)
        self.forecast = Forecast(self._queue, self.lanes, self._chooser, self.gate, self)
        self.entrance = Entrance(
            self._queue,
            self.forecast,
            self._admission,
            metrics,
            lambda victim, full: self._fail(victim, full, "displaced"),
        )
        self._crew = Crew(self.lanes.most_places, f"{RUNS}{model}", self.gate.relay)
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.queue_depth.set_function(lambda: self._queue.items)
        metrics.queue_bytes.set_function(lambda: self._queue.nbytes)

    @property
    def cost(self) -> CostModel:
        """What batches cost under load."""
        return self.lanes.narrow.cost

    @property
    def queued_items(self) -> int:
        """Items that wait."""
        return self._queue.items

    @property
    def queued_bytes(self) -> int:
        """Bytes of the items that wait."""
        return self._queue.nbytes

    @property
    def running_items(self) -> int:
        """Items on the device."""
        return self._running.items

    @property
    def busy(self) -> bool:
        """See `Member.busy`."""
        return bool(self._queue) or bool(self._running)

    def longest_run_s(self) -> float:
        """Age of the oldest batch on the device, seconds; 0 where none is. Safe from any thread."""
        return self._running.longest_s()

    async def submit(
        self,
        inputs: Tensors,
        *,
        deadline: float | None = None,
        work_per_item: float = 1.0,
        turn: Turn = ALONE,
    ) -> Tensors:
        """Outputs for `inputs`: arrays [n, ...] of n >= 1 items, C-contiguous, unchanged by the
        caller until then.

        `deadline` is the call's, on time.monotonic()'s clock. A later stage of it (`turn`) was
        admitted with the call, and is not refused for its deadline again. Raises QueueFull,
        DeadlineExceeded, Draining, InvalidTensor (a request larger than the queue) or DeviceFailed.
        Cancelling drops what is not on the device yet.
        """
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        request = Request(
            len(next(iter(inputs.values()))),
            now,
            turn.deadline(deadline, now),
            loop.create_future(),
            standing=current_standing.get(),
        )
        rows = self._chooser.rows(inputs)
        chunks = split(request, inputs, self._sequence, rows, work_per_item)
        self.entrance.admit(request, chunks, turn, deadline, now)
        self._watch.arrived(request)
        self._sequence += len(chunks)
        request.chunks = chunks
        request.parts = [{} for _ in chunks]
        request.missing = len(chunks)
        for chunk in chunks:
            self._put(chunk)
        self.gate.pump_soon()
        due = request.deadline
        expiry = loop.call_at(due, self._expire, request) if due is not None else None
        try:
            parts = await request.future
        except asyncio.CancelledError:
            self._withdraw(request, "cancelled")
            raise
        finally:
            if expiry is not None:
                expiry.cancel()
            self.entrance.left(request, turn)
        return await joined(parts)

    async def probe(self, inputs: Tensors) -> None:
        """Run `inputs` past the queue, as soon as a thread is free; raises DeviceFailed."""
        run = self.lanes.narrow.run
        await self._crew.past_the_queue(partial(guarded_run, self.model, run, inputs))

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests, wait for what is queued and running; after `timeout_s` fail what
        still queues.
        """
        self.entrance.closed = self.entrance.closed or "the server is draining"
        self.gate.pump_soon()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            detail = f"the drain limit of {timeout_s:g} s passed before the request could run"
            self._fail_all(self._queue, Draining(detail))

    async def close(self) -> None:
        """Fail everything that is not answered and let the threads go; a run in progress ends in
        its own time.
        """
        self.entrance.closed = "the server has stopped"
        self._closed = True
        on_device = [chunk for batch in self._running for chunk in batch.chunks]
        self._fail_all([*self._queue, *on_device], Draining(self.entrance.closed))
        if self._timer is not None:
            self._timer.cancel()
        self._crew.close()

    # Scheduling: what the gate asks

    def rank(self, now: float) -> tuple[Priority, float] | None:
        """See `Member.rank`."""
        if not self._queue:
            return None
        if all(lane.free <= 0 for lane in self.lanes) and self._chooser.lane_ahead() is None:
            return None
        if self._limits.max_queue_delay_s > 0.0 and not self.entrance.closed:
            head, _, wake = self._chooser.due(now, hurry=False)
            if head is None:
                self._wake_at(wake)
                return None
        return self._queue.oldest(now)

    def dispatch(self, now: float) -> bool:
        """See `Member.dispatch`."""
        self._drop_the_late(now)
        if not self._queue:
            return False
        chosen = self._chooser.choose(now, bool(self.entrance.closed), self._running.elements)
        if chosen is not None:
            self._start(chosen)
        return chosen is not None

    def cpu_seconds_queued(self) -> float:
        """See `Member.cpu_seconds_queued`."""
        return self.forecast.cpu_seconds(self._queue.work)

    def cpu_seconds_running(self, now: float) -> float:
        """See `Member.cpu_seconds_running`."""
        return self._running.cpu_seconds(now)

    def _wake_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if moment < math.inf:
            self._timer = asyncio.get_running_loop().call_at(moment, self.gate.pump_soon)

    def _drop_the_late(self, now: float) -> None:
        """Take out what has expired, and what surely will have by the end of its run: time spent
        on it would be missing for others.
        """
        crowded = len(self._queue) > 1  # else nothing is lost by trying
        for chunk in list(self._queue):
            request = chunk.request
            if request.deadline is None or request.settled:
                continue
            if request.expired(now):
                self._expire(request)
            elif crowded and (
                full := self._admission.hopeless(
                    request.deadline - now, self.lanes.soonest(chunk.work, 1), now
                )
            ):
                self._fail(request, full, "late")

    def _start(self, chosen: NextBatch) -> None:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        chunks, lane = chosen.chunks, chosen.lane
        self._waiting.take(chunks)
        items = sum(chunk.items for chunk in chunks)
        trace = self._watch.dispatched(chunks, items, chosen.reason, lane, now)
        batch = self._running.add(chunks, lane, trace)
        self.gate.take(lane.threads)
        work = partial(execute, self.model, lane.run, chunks, self._limits.pad_sizes)
        if self._solitude.allows(chunks, lane):
            batch.begun = now
            self._finished(batch, outcome_of(work))
            return
        batch.overdue = loop.call_later(batch.patience_s(now), self._give_up_on, batch)
        self._crew.begin(batch, work, self._returned)

    def _give_up_on(self, batch: Batch) -> None:
        """A run that hangs keeps its own network waiting, and no other."""
        now = time.monotonic()
        patience = batch.patience_s(now)
        if batch.begun is None or patience > 0:  # it was ready long before it could begin
            later = asyncio.get_running_loop().call_later
            batch.overdue = later(patience, self._give_up_on, batch)
            return
        batch.overdue = None
        self._crew.release(batch)
        self.gate.give(batch.lane.threads)
        self.gate.pump()

    # Answers

    def _returned(self, batch: Batch, ran: Ran | BaseException) -> None:
        self._solitude.ended(batch.chunks)
        if batch.overdue is not None:
            batch.overdue.cancel()
        else:  # its CPUs are somebody else's by now
            self.gate.take(batch.lane.threads)
        self._finished(batch, ran)

    def _finished(self, batch: Batch, ran: Ran | BaseException) -> None:
        self._running.end(batch)
        self.gate.give(batch.lane.threads)
        self.gate.answered(len(batch.chunks))
        if batch.trace is not None:
            batch.trace.end("" if isinstance(ran, Ran) else type(ran).__name__)
        if isinstance(ran, Ran):
            self._learn(batch, ran)
            self._on_success()
            self.gate.pump()  # the device first: it would wait for what the answers cost
            deliver(ran.chunks, ran.outputs)
            self._expire_skipped(batch.chunks, ran.chunks)
        else:
            self._retry_or_fail(batch, self._failure(ran))
            self.gate.pump()
        self._note_idle()

    def _failure(self, error: BaseException) -> DeviceFailed:
        """`error` of a run as what its requests get; counted."""
        failure = error
        if isinstance(failure, DeviceFailed):
            self._on_failure(failure)
        else:  # the pool was closed before the batch began, or concatenation ran out of memory
            failure = DeviceFailed(self.model, FailureKind.EXECUTION, repr(error))
        self._metrics.failed(failure.reason)
        return failure

    def _learn(self, batch: Batch, ran: Ran) -> None:
        if not ran.chunks:  # nobody waited any more
            return
        now = time.monotonic()
        items = sum(chunk.items for chunk in ran.chunks)
        work = sum(chunk.work for chunk in ran.chunks)
        batch.lane.cost.observe(work * (1.0 + ran.padding / items), ran.seconds)
        batch.lane.last_run = now
        self._admission.observed(now)
        self._watch.ran(ran.chunks, ran.seconds, ran.padding)

    def _retry_or_fail(self, batch: Batch, error: DeviceFailed) -> None:
        """Batch-mates of a poisoned item get their answer from a run of their own, once."""
        for chunk in batch.chunks:
            if chunk.request.settled:
                continue
            if len(batch.chunks) > 1 and not self._closed:
                chunk.alone = True
                self._put(chunk)
            else:
                self._fail(chunk.request, error, "failed")

    def _expire(self, request: Request) -> None:
        """The deadline has passed: what still queues of `request` would be run for nothing."""
        if any(chunk in self._queue for chunk in request.chunks):
            self._fail(request, DeadlineExceeded(self.model), "expired")

    def _expire_skipped(self, chunks: Sequence[Chunk], ran: Sequence[Chunk]) -> None:
        """What was ready and expired before it could begin has not been run."""
        if len(ran) == len(chunks):
            return
        for chunk in chunks:
            if chunk not in ran and not chunk.request.settled:
                self._fail(chunk.request, DeadlineExceeded(self.model), "expired")

    def _fail(self, request: Request, error: EngineError, reason: str) -> None:
        self._withdraw(request, reason)
        if not request.settled:
            request.future.set_exception(error)

    def _fail_all(self, chunks: Iterable[Chunk], error: EngineError) -> None:
        for request in {chunk.request for chunk in chunks}:
            self._fail(request, error, "drained")

    # Bookkeeping

    def _put(self, chunk: Chunk) -> None:
        self._waiting.put(chunk)
        self._idle.clear()

    def _withdraw(self, request: Request, reason: str) -> None:
        """Free the places of `request` in the queue at once."""
        dropped = self._waiting.drop(request)
        if dropped:
            self._watch.dropped(request, reason, dropped)
        self._note_idle()

    def _note_idle(self) -> None:
        """A drain waits for it."""
        if not self._queue and not self._running:
            self._idle.set()
