"""Whether the server takes requests, and how many it is working on: what draining waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from velatura.server.rpc.errors import TooManyRequests, Unavailable


class State(StrEnum):
    """A server's life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Lifecycle:
    """State and count of requests. Belongs to the event loop: not for other threads."""

    def __init__(self, max_requests: int) -> None:
        self.state = State.STARTING
        self._max_requests = max_requests
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests begun and not ended."""
        return self._in_flight

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count the block as a request; raises `Unavailable` or `TooManyRequests` instead of
        entering it."""
        if self.state is State.STARTING:
            raise Unavailable(
                "STARTING", "The server is still loading its models. Retry soon.", 1.0
            )
        if self.state is State.DRAINING:
            message = "The server is draining and takes no new requests. Retry on another server."
            raise Unavailable("DRAINING", message, 1.0)
        if self._in_flight >= self._max_requests:
            raise TooManyRequests(self._max_requests)
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; False when some still are after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
