"""Dynamic batching for one network: what queues up while the device is busy goes to it together.

The event loop's thread owns the queue and all bookkeeping; worker threads only concatenate and run.
An idle device never waits for company unless `max_queue_delay_s` says so. Requests share a batch
only when all their shapes agree, and never share a fate: a batch that fails is run again item by
item.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velatura.server.engine.admission import Admission, BatchLimits, Load
from velatura.server.engine.batch_watch import BatchWatch, Closed
from velatura.server.engine.cost import CostModel
from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    Draining,
    EngineError,
    FailureKind,
    Refusal,
)
from velatura.server.engine.shape_queue import Chunk, Request, ShapeQueue, Tensors, split
from velatura.server.observability.model_metrics import ModelMetrics
from velatura.server.observability.tracing import BatchTrace

# Larger results than this are joined on a thread, so that the event loop keeps answering.
JOIN_ON_THREAD_BYTES = 1 << 20


@dataclass(eq=False, slots=True)
class _Batch:
    chunks: list[Chunk]
    items: int
    work: float
    started: float
    expected_end: float
    trace: BatchTrace | None


class Batcher:
    """The scheduler of one network. Build and use it on one event loop; `run` is called on its own
    threads.
    """

    def __init__(
        self,
        model: str,
        run: Callable[[Mapping[str, NDArray[Any]]], Tensors],
        limits: BatchLimits,
        metrics: ModelMetrics,
        *,
        cost: CostModel | None = None,
        on_success: Callable[[], None] = lambda: None,
        on_failure: Callable[[DeviceFailed], None] = lambda _: None,
    ) -> None:
        self.model = model
        self.cost = cost or CostModel()
        self._run = run
        self._limits = limits
        self._metrics = metrics
        self._watch = BatchWatch(metrics, limits, self.cost)
        self._on_success = on_success
        self._on_failure = on_failure
        self._queue = ShapeQueue()
        self._running: list[_Batch] = []
        self._admission = Admission(model, limits, self.cost)
        self._pool = ThreadPoolExecutor(limits.instances, thread_name_prefix=f"run-{model}")
        self._sequence = 0
        self._pump_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = ""  # why no more requests are taken
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

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
        return sum(batch.items for batch in self._running)

    def longest_run_s(self) -> float:
        """Age of the oldest batch on the device, seconds; 0 where none is. Safe from any thread."""
        started = min((batch.started for batch in tuple(self._running)), default=None)
        return 0.0 if started is None else time.monotonic() - started

    async def submit(
        self, inputs: Tensors, *, deadline: float | None = None, work_per_item: float = 1.0
    ) -> Tensors:
        """Outputs for `inputs`: arrays [n, ...] of n >= 1 items, C-contiguous, unchanged by the
        caller until then.

        `deadline` is on time.monotonic()'s clock. Raises QueueFull, DeadlineExceeded, Draining,
        InvalidTensor (a request larger than the queue) or DeviceFailed. Cancelling drops what is
        not on the device yet.
        """
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        request = Request(len(next(iter(inputs.values()))), now, deadline, loop.create_future())
        chunks = split(request, inputs, self._sequence, self._rows(inputs), work_per_item)
        self._admit(request, chunks, now)
        self._watch.arrived(request)
        self._sequence += len(chunks)
        request.chunks = chunks
        request.parts = [{} for _ in chunks]
        request.missing = len(chunks)
        for chunk in chunks:
            self._queue.push(chunk)
        self._idle.clear()
        self._note_depth()
        self._pump_soon()
        expiry = loop.call_at(deadline, self._expire, request) if deadline is not None else None
        try:
            parts = await request.future
        except asyncio.CancelledError:
            self._withdraw(request, "cancelled")
            raise
        finally:
            if expiry is not None:
                expiry.cancel()
        return await _joined(parts)

    async def probe(self, inputs: Tensors) -> None:
        """Run `inputs` past the queue, as soon as a thread is free; raises DeviceFailed."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._guarded_run, inputs)

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests, wait for what is queued and running; after `timeout_s` fail what
        still queues.
        """
        self._stopping = self._stopping or "the server is draining"
        self._pump_soon()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            detail = f"the drain limit of {timeout_s:g} s passed before the request could run"
            for request in {chunk.request for chunk in self._queue}:
                self._fail(request, Draining(detail), "drained")

    async def close(self) -> None:
        """Fail everything that is not answered and let the threads go; a run in progress ends in
        its own time.
        """
        self._stopping = "the server has stopped"
        self._closed = True
        on_device = [chunk for batch in self._running for chunk in batch.chunks]
        for request in {chunk.request for chunk in [*self._queue, *on_device]}:
            self._fail(request, Draining(self._stopping), "drained")
        if self._timer is not None:
            self._timer.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # Admission

    def _rows(self, inputs: Tensors) -> int:
        """Items that fit one batch, by count and by elements, at least one."""
        per_item = sum(array[:1].size for array in inputs.values())
        by_elements = self._limits.max_batch_elements // max(1, per_item)
        return max(1, min(self._limits.max_batch_size, by_elements))

    def _admit(self, request: Request, chunks: Sequence[Chunk], now: float) -> None:
        if self._stopping:
            self._metrics.refused(Refusal.DRAINING)
            raise Draining(self._stopping)
        load = Load(
            queued_items=self._queue.items,
            queued_bytes=self._queue.nbytes,
            queued_work=self._queue.work,
            queued_batches=self._queue.batches(self._limits.max_batch_size),
            running_s=sum(max(0.0, batch.expected_end - now) for batch in self._running),
            idle=not self._queue and not self._running,
        )
        refusal = self._admission.refusal(request, chunks, load, now)
        if refusal is not None:
            reason, error = refusal
            self._metrics.refused(reason)
            raise error

    # Scheduling

    def _pump_soon(self) -> None:
        """Requests that arrive in the same turn of the loop share a batch, at no cost in time."""
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._running) < self._limits.instances:
            chunks, reason = self._next_batch(time.monotonic())
            if not chunks:
                break
            self._dispatch(chunks, reason)
        self._note_depth()
        if not self._queue and not self._running:
            self._idle.set()

    def _next_batch(self, now: float) -> tuple[list[Chunk], Closed]:
        """The next batch, taken off the queue, and what closed it; empty where nothing is due."""
        for chunk in list(self._queue):
            if chunk.request.expired(now):
                self._expire(chunk.request)
        wake = None
        for head in self._queue.heads():
            picked = self._queue.pick(
                head, self._limits.max_batch_size, self._limits.max_batch_elements
            )
            reason, due = self._due(head, picked)
            if due <= now:
                for chunk in picked:
                    self._queue.remove(chunk)
                if reason is Closed.DEVICE_FREE and self._queue:
                    reason = Closed.SHAPE
                return picked, reason
            wake = due if wake is None else min(wake, due)
        if wake is not None:
            self._timer = asyncio.get_running_loop().call_at(wake, self._pump)
        return [], Closed.DEVICE_FREE

    def _due(self, head: Chunk, picked: Sequence[Chunk]) -> tuple[Closed, float]:
        """What closes a batch of `picked`, and when."""
        arrived = head.request.arrived
        if head.alone:
            return Closed.RETRY, arrived
        if sum(chunk.items for chunk in picked) >= self._rows(head.inputs):
            return Closed.FULL, arrived
        delay = self._limits.max_queue_delay_s
        if delay <= 0.0 or self._stopping:
            return Closed.DEVICE_FREE, arrived
        latest = arrived + delay
        if head.request.deadline is not None:  # waiting for company must not cost the deadline
            in_time = head.request.deadline - 2.0 * self.cost.estimate(head.work)
            if in_time < latest:
                return Closed.DEADLINE, in_time
        return Closed.DELAY, latest

    def _dispatch(self, chunks: list[Chunk], reason: Closed) -> None:
        now = time.monotonic()
        work = sum(chunk.work for chunk in chunks)
        items = sum(chunk.items for chunk in chunks)
        trace = self._watch.dispatched(chunks, items, reason, now)
        batch = _Batch(chunks, items, work, now, now + self.cost.estimate(work), trace)
        self._running.append(batch)
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, self._execute, chunks)
        future.add_done_callback(partial(self._finished, batch))

    # On a worker thread

    def _execute(self, chunks: Sequence[Chunk]) -> tuple[Tensors, float]:
        """Outputs of the whole batch and the seconds they took."""
        inputs = chunks[0].inputs
        if len(chunks) > 1:
            inputs = {
                name: np.concatenate([chunk.inputs[name] for chunk in chunks]) for name in inputs
            }  # [sum of items, ...] each
        started = time.monotonic()
        outputs = self._guarded_run(inputs)
        return outputs, time.monotonic() - started

    def _guarded_run(self, inputs: Tensors) -> Tensors:
        items = len(next(iter(inputs.values())))
        try:
            outputs = self._run(inputs)
        except DeviceFailed:
            raise
        except Exception as error:  # whatever it is, only this batch may suffer
            detail = f"{type(error).__name__}: {error}"
            raise DeviceFailed(self.model, FailureKind.EXECUTION, detail) from error
        for name, array in outputs.items():
            if array.shape[:1] != (items,):
                detail = f"output {name!r} has shape {list(array.shape)} for a batch of {items}"
                raise DeviceFailed(self.model, FailureKind.OUTPUT_SHAPE, detail)
        return outputs

    # Answers

    def _finished(self, batch: _Batch, future: asyncio.Future[tuple[Tensors, float]]) -> None:
        self._running.remove(batch)
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if batch.trace is not None:
            batch.trace.end("" if error is None else type(error).__name__)
        if error is None:
            outputs, seconds = future.result()
            self._learn(batch, seconds)
            self._on_success()
            self._deliver(batch, outputs)
        elif isinstance(error, DeviceFailed):
            self._metrics.failed(error.reason)
            self._on_failure(error)
            self._retry_or_fail(batch, error)
        else:  # the pool was closed before the batch began, or concatenation ran out of memory
            failure = DeviceFailed(self.model, FailureKind.EXECUTION, repr(error))
            self._metrics.failed(failure.reason)
            self._retry_or_fail(batch, failure)
        self._pump()

    def _learn(self, batch: _Batch, seconds: float) -> None:
        self.cost.observe(batch.work, seconds)
        self._admission.observed(time.monotonic())
        self._watch.ran(batch.chunks, seconds)

    def _deliver(self, batch: _Batch, outputs: Tensors) -> None:
        start = 0
        for chunk in batch.chunks:
            stop = start + chunk.items
            request = chunk.request
            if not request.settled:
                request.parts[chunk.index] = (
                    outputs
                    if len(batch.chunks) == 1
                    else {name: array[start:stop] for name, array in outputs.items()}
                )  # [items, ...] each
                request.missing -= 1
                if not request.missing:
                    request.future.set_result(request.parts)
            start = stop

    def _retry_or_fail(self, batch: _Batch, error: DeviceFailed) -> None:
        """Batch-mates of a poisoned item get their answer from a run of their own, once."""
        for chunk in batch.chunks:
            if chunk.request.settled:
                continue
            if len(batch.chunks) > 1 and not self._closed:
                chunk.alone = True
                self._queue.push(chunk)
            else:
                self._fail(chunk.request, error, "failed")

    def _expire(self, request: Request) -> None:
        """The deadline has passed: what still queues of `request` would be run for nothing."""
        if any(chunk in self._queue for chunk in request.chunks):
            self._fail(request, DeadlineExceeded(self.model), "expired")

    def _fail(self, request: Request, error: EngineError, reason: str) -> None:
        self._withdraw(request, reason)
        if not request.settled:
            request.future.set_exception(error)

    def _withdraw(self, request: Request, reason: str) -> None:
        """Free the places of `request` in the queue at once."""
        dropped = sum(chunk.items for chunk in request.chunks if self._queue.remove(chunk))
        if dropped:
            self._watch.dropped(request, reason, dropped)
            self._pump_soon()  # the queue may be empty now, and a drain waits for that
        self._note_depth()

    def _note_depth(self) -> None:
        self._metrics.queue_depth.set(self._queue.items)
        self._metrics.queue_bytes.set(self._queue.nbytes)


async def _joined(parts: Sequence[Tensors]) -> Tensors:
    """The chunks' outputs as one; what is a single chunk is not copied."""
    if len(parts) == 1:
        return parts[0]

    def join() -> Tensors:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    size = sum(array.nbytes for part in parts for array in part.values())
    return await asyncio.to_thread(join) if size > JOIN_ON_THREAD_BYTES else join()
