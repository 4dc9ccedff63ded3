"""An event loop whose clock jumps to the next timer, and whose threads are part of it.

Thousands of interleavings run in seconds, and each of them runs in the same way again. A function
that is handed to a thread runs at once; it may `spend` time, and its result arrives when that time
is over.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")

START = 1000.0


class StuckError(AssertionError):
    """Everybody waits and nothing will ever happen."""


class _NeverWaits(selectors.BaseSelector):
    """Lets the loop's clock jump instead of waiting; knows of no files."""

    def __init__(self) -> None:
        self.loop: VirtualLoop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise StuckError("nothing is due, and somebody still waits")
        self.loop.now += timeout
        return []

    def get_map(self) -> Any:
        return {}

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.SelectorEventLoop):
    """`now` is what `time()` and, inside `play`, `time.monotonic()` say."""

    def __init__(self) -> None:
        selector = _NeverWaits()
        selector.loop = self
        self.now = START
        self._spent = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        """Called by a function on a thread: it has worked for so long."""
        self._spent += seconds

    def clock(self) -> float:
        """What a function on a thread sees."""
        return self.now + self._spent

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        return asyncio.wrap_future(
            (executor or VirtualPool(self)).submit(partial(func, *args)), loop=self
        )

    def work(self, func: Callable[[], T]) -> tuple[T | None, BaseException | None, float]:
        """What `func` on a thread gives or raises, and how long it takes."""
        self._spent = 0.0
        try:
            outcome, error = func(), None
        except BaseException as raised:
            outcome, error = None, raised
        spent, self._spent = self._spent, 0.0
        return outcome, error, spent


class VirtualPool:
    """Threads without end: what is submitted runs at once, and is done when its time is over."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._shut = False

    def submit(self, func: Callable[[], T]) -> Future[T]:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()
        outcome, error, spent = self._loop.work(func)

        def arrive() -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(outcome)  # type: ignore[arg-type]

        self._loop.call_later(spent, arrive)
        return future

    def shutdown(self, **_: bool) -> None:
        self._shut = True


def play(scene: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run one scene from beginning to end; raises StuckError where it has none."""
    loop = VirtualLoop()
    try:

        def pool(_threads: int, _name: str) -> VirtualPool:
            return VirtualPool(loop)

        pools = mock.patch("velatura.server.engine.crew.named_pool", pool)
        with mock.patch("time.monotonic", loop.clock), pools:
            return loop.run_until_complete(scene(loop))
    finally:
        loop.close()
