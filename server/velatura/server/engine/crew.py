"""The threads that run one network, and how batches get to them and back to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from velatura.server.engine.execution import Ran, outcome_of
from velatura.server.engine.relay import Relay, Ticket
from velatura.server.engine.running import Batch
from velatura.server.engine.thread_names import named_pool

T = TypeVar("T")
Returned = Callable[[Batch, Ran | BaseException], None]
"""Gets a batch on the event loop, with what it came to."""


class Crew:
    """Belongs to one event loop; which run begins when is the relay's affair."""

    def __init__(self, threads: int, name: str, relay: Relay) -> None:
        self._pool = named_pool(threads, name)
        self._relay = relay

    def begin(self, batch: Batch, work: Callable[[], Ran], returned: Returned) -> None:
        """Do `work` as soon as there are CPUs for it. `returned` is called in any case, also after
        `close`.
        """
        back = partial(self._back, asyncio.get_running_loop(), batch, returned)
        batch.ticket = Ticket(batch.lane.threads, partial(self._launch, batch, work, back))
        self._relay.start(batch.ticket)

    def release(self, batch: Batch) -> None:
        """`batch` has ended, or hangs: others may have its CPUs."""
        if batch.ticket is not None:
            self._relay.end(batch.ticket)

    async def past_the_queue(self, work: Callable[[], T]) -> T:
        """What `work` gives, as soon as a thread is free."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let the threads go; a run in progress ends in its own time."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _launch(
        self, batch: Batch, work: Callable[[], Ran], back: Callable[[Ran | BaseException], None]
    ) -> None:
        """On any thread."""

        def run() -> Ran:
            batch.begun = time.monotonic()
            return work()

        try:
            future = self._pool.submit(run)
        except RuntimeError as error:  # closed before the batch began
            back(error)
        else:
            future.add_done_callback(lambda done: back(outcome_of(done.result)))

    def _back(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Batch,
        returned: Returned,
        ran: Ran | BaseException,
    ) -> None:
        """On any thread. The next run goes first: the loop has answers to send before it would
        come to that.
        """
        self.release(batch)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(returned, batch, ran)
