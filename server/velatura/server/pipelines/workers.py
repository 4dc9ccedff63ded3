"""A bounded pool of threads for codec and pixel work, so that the event loop only ever waits."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from velatura.server.observability.process_metrics import ImageMetrics

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


class Workers:
    """Runs functions off the event loop; Pillow, OpenCV and numpy release the GIL for most of their
    work."""

    def __init__(self, threads: int, metrics: ImageMetrics | None = None) -> None:
        self._tasks = 0  # handed to the pool and not done
        if metrics is not None:
            metrics.threads.set(threads)
            metrics.running.set_function(lambda: min(self._tasks, threads))
            metrics.waiting.set_function(lambda: max(0, self._tasks - threads))
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pixels")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(*args, **kwargs)` in the pool; a cancelled caller's work is dropped if it has
        not started."""
        context = contextvars.copy_context()
        call = functools.partial(context.run, function, *args, **kwargs)
        self._tasks += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._tasks -= 1

    def close(self) -> None:
        """Drop what has not started, and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)


async def both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Run two coroutines side by side; when one fails the other is cancelled and the failure is
    raised."""
    try:
        async with asyncio.TaskGroup() as group:
            one, two = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return one.result(), two.result()


async def every(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines side by side, results in order; the first failure cancels the others and is
    raised."""
    if len(coroutines) < 2:  # beside nothing: no task of its own
        return [await coroutine for coroutine in coroutines]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
