"""Drives one gRPC method with requests that are bytes already: callers that wait for their answer
(closed loop), or arrivals at a rate that do not care whether earlier ones were answered (open
loop).

The load shares its CPUs with the server, so it does as little as it can: one process, one
connection, nothing parsed. In the open loop latency counts from when a request was due, so that a
stall is seen by everybody who would have met it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

T = TypeVar("T")
MAX_MESSAGE = 64 * 1024 * 1024
STATUS_KEY = "grpc-status-details-bin"
NEVER = 600.0  # seconds after which even a call without a deadline is given up
WARM_UP_S = 0.2


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request ended: its status code, when it was due and when it ended on
    time.perf_counter()'s clock, and the google.rpc.Status of an error as it came."""

    code: str
    due: float
    ended: float
    status: bytes = b""

    @property
    def ok(self) -> bool:
        """Answered."""
        return self.code == "OK"

    @property
    def latency_s(self) -> float:
        """From when it was due."""
        return self.ended - self.due

    @property
    def retry_after_s(self) -> float | None:
        """Seconds of the RetryInfo in a refusal; None without one."""
        info = error_details_pb2.RetryInfo()
        for detail in status_pb2.Status.FromString(self.status).details:
            if detail.Unpack(info):
                return float(info.retry_delay.ToMicroseconds()) / 1e6
        return None


@dataclass
class Outcome:
    """The replies of a measurement; those that ended within [`begin`, `end`] count for its rate.
    `asked` counts all requests, those of the warm-up too."""

    begin: float
    end: float
    replies: list[Reply] = field(default_factory=list)
    asked: int = 0

    def rate(self, within_s: float = NEVER) -> float:
        """Answers a second, of those that took no longer than `within_s`."""
        counted = sum(
            reply.ok and self.begin <= reply.ended <= self.end and reply.latency_s <= within_s
            for reply in self.replies
        )
        return counted / (self.end - self.begin)

    def latency_ms(self, *shares: float) -> list[float]:
        """Quantiles of the answers' latency."""
        values = sorted(reply.latency_s for reply in self.replies if reply.ok)
        return [quantile(values, share) * 1000 for share in shares]

    def codes(self) -> dict[str, int]:
        """How many replies had which code."""
        found: dict[str, int] = {}
        for reply in self.replies:
            found[reply.code] = found.get(reply.code, 0) + 1
        return found

    def errors(self) -> int:
        """Replies that are not answers."""
        return sum(not reply.ok for reply in self.replies)


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns, on uvloop where that is installed, as in our server."""
    factory = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest-rank quantile of ascending values; 0 for none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Method:
    """One method of a server, taking and giving bytes."""

    def __init__(self, channel: grpc.aio.Channel, path: str) -> None:
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)

    async def ask(
        self, request: bytes, due: float, timeout_s: float | None = None, request_id: str = ""
    ) -> Reply:
        """Send one request, due at `due`; the deadline counts from there."""
        left = NEVER if timeout_s is None else due + timeout_s - time.perf_counter()
        if left <= 0:
            return Reply("DEADLINE_EXCEEDED", due, time.perf_counter())
        try:
            metadata = (("x-request-id", request_id),) if request_id else None
            await self._call(request, timeout=left, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return Reply(error.code().name, due, time.perf_counter(), status_of(error))
        return Reply("OK", due, time.perf_counter())


def status_of(error: grpc.aio.AioRpcError) -> bytes:
    """The google.rpc.Status that came with an error, serialised: read after the measurement."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_KEY and isinstance(value, bytes):
            return value
    return b""


@asynccontextmanager
async def connected(
    address: str, options: Iterable[tuple[str, str | int]] = ()
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel for the block, without the retries that gRPC has by itself unless `options` say
    so."""
    base = {
        "grpc.max_receive_message_length": MAX_MESSAGE,
        "grpc.max_send_message_length": MAX_MESSAGE,
        "grpc.enable_retries": 0,
        "grpc.enable_http_proxy": 0,
        "grpc.use_local_subchannel_pool": 1,
    }
    async with grpc.aio.insecure_channel(
        address, options=list({**base, **dict(options)}.items())
    ) as channel:
        yield channel


async def closed_loop(
    method: Method,
    request: Callable[[], bytes],
    callers: int,
    seconds: float,
    warm_up_s: float = WARM_UP_S,
) -> Outcome:
    """Keep `callers` requests in flight for `warm_up_s`, which is not counted, and `seconds`."""
    start = time.perf_counter()
    outcome = Outcome(start + warm_up_s, start + warm_up_s + seconds)
    counted: list[Reply] = []

    async def caller() -> None:
        while (due := time.perf_counter()) < outcome.end:
            outcome.asked += 1
            reply = await method.ask(request(), due)
            if reply.ended >= outcome.begin:
                counted.append(reply)

    await asyncio.gather(*(caller() for _ in range(callers)))
    if not any(outcome.begin <= reply.ended <= outcome.end for reply in counted):
        # Slower than the measurement is long: count until the first answers.
        outcome.end = max(outcome.end, *(reply.ended for reply in counted))
    outcome.replies = counted
    return outcome


def poisson(rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Arrival times in [0, seconds) of a Poisson process."""
    times: list[float] = []
    now = rng.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += rng.expovariate(rate)
    return times


async def open_loop(
    method: Method,
    request: Callable[[], bytes],
    arrivals: Sequence[float],
    seconds: float,
    timeout_s: float | None = None,
) -> Outcome:
    """Send a request at each of `arrivals`, whatever becomes of the others, and wait for all."""
    begin = time.perf_counter()
    outcome = Outcome(begin, begin + seconds)
    tasks: list[asyncio.Task[Reply]] = []
    for arrival in arrivals:
        wait = begin + arrival - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(method.ask(request(), begin + arrival, timeout_s)))
    outcome.replies = list(await asyncio.gather(*tasks))
    outcome.asked = len(tasks)
    return outcome
