"""An event loop whose clock jumps to the next timer, and whose threads are part of it.

Thousands of interleavings run in seconds, and each of them runs in the same way again. A function
that is handed to a thread runs at once; it may `spend` time, and its result arrives when that time
is over.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
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

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        if executor is not None and executor._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: asyncio.Future[T] = self.create_future()
        self._spent = 0.0
        try:
            outcome, error = func(*args), None
        except BaseException as raised:
            outcome, error = None, raised
        spent, self._spent = self._spent, 0.0

        def arrive() -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(outcome)  # type: ignore[arg-type]

        self.call_later(spent, arrive)
        return future


def play(scene: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run one scene from beginning to end; raises StuckError where it has none."""
    loop = VirtualLoop()
    try:
        with mock.patch("time.monotonic", loop.clock):
            return loop.run_until_complete(scene(loop))
    finally:
        loop.close()
