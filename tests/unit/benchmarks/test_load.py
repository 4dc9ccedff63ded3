"""What the load generator counts, against a server whose behaviour is known."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from benchmarks.load import (
    STATUS_KEY,
    Method,
    Outcome,
    Reply,
    closed_loop,
    connected,
    open_loop,
    poisson,
    quantile,
)
from benchmarks.sections.overload import Hanging

Behaviour = Callable[[bytes, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[bytes]]


@asynccontextmanager
async def method_of(behaviour: Behaviour) -> AsyncIterator[Method]:
    """A server that answers every call with `behaviour`."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.unary_unary_rpc_method_handler(behaviour)

    server = grpc.aio.server(handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with connected(f"127.0.0.1:{port}") as channel:
            yield Method(channel, "/test/Call")
    finally:
        await server.stop(None)


def test_quantiles_are_nearest_ranks() -> None:
    values = [float(value) for value in range(100)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [0, 50, 99, 99]
    assert quantile([], 0.5) == 0


def test_poisson_arrivals_have_the_rate_and_come_in_order() -> None:
    times = poisson(200.0, 50.0, random.Random(0))
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 50
    assert len(times) == pytest.approx(10_000, rel=0.05)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    spread = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert spread == pytest.approx(mean * mean, rel=0.1)  # as an exponential distribution has it


def test_a_rate_counts_answers_in_the_window_and_in_time() -> None:
    replies = [
        Reply("OK", 0.0, 0.5),  # before the window
        Reply("OK", 1.0, 1.2),
        Reply("OK", 1.0, 2.5),  # late
        Reply("RESOURCE_EXHAUSTED", 1.0, 1.1),
        Reply("OK", 2.9, 3.1),  # after it
    ]
    outcome = Outcome(1.0, 3.0, replies)
    assert outcome.rate() == 1.0
    assert outcome.rate(within_s=0.5) == 0.5
    assert outcome.errors() == 1
    assert outcome.codes() == {"OK": 4, "RESOURCE_EXHAUSTED": 1}


async def test_closed_loop_keeps_so_many_calls_in_flight_and_no_more() -> None:
    now, most = 0, 0

    async def behaviour(request: bytes, _context: object) -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return request

    async with method_of(behaviour) as method:
        outcome = await closed_loop(method, lambda: b"x", 5, 0.3, 0.1)
    assert most == 5
    assert set(outcome.codes()) == {"OK"}
    assert outcome.asked >= len(outcome.replies)
    assert outcome.rate() <= 5 / 0.02
    assert outcome.latency_ms(0.5)[0] >= 20


async def test_closed_loop_waits_for_the_first_answer_of_a_slow_server() -> None:
    async def behaviour(request: bytes, _context: object) -> bytes:
        await asyncio.sleep(0.2)
        return request

    async with method_of(behaviour) as method:
        outcome = await closed_loop(method, lambda: b"x", 1, 0.05, 0.0)
    assert 0 < outcome.rate() <= 5


async def test_open_loop_does_not_hide_that_a_stall_kept_everybody_waiting() -> None:
    device = asyncio.Lock()

    async def behaviour(request: bytes, _context: object) -> bytes:
        async with device:
            await asyncio.sleep(0.15)
        return request

    async with method_of(behaviour) as method:
        outcome = await open_loop(method, lambda: b"x", [0.0, 0.01, 0.02], 0.1)
    latencies = sorted(reply.latency_s for reply in outcome.replies)
    assert latencies[0] >= 0.15
    assert latencies[1] >= 0.28
    assert latencies[2] >= 0.42
    assert outcome.rate() == 0  # nothing was answered while requests came


async def test_a_deadline_counts_from_when_the_request_was_due() -> None:
    seen: list[float | None] = []

    async def behaviour(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        seen.append(context.time_remaining())
        return request

    async with method_of(behaviour) as method:
        due = asyncio.get_running_loop().time()  # time.perf_counter() and this one share a clock
        assert (await method.ask(b"", due - 3, 5.0)).code == "OK"
        assert (await method.ask(b"", due - 9, 5.0)).code == "DEADLINE_EXCEEDED"
    assert len(seen) == 1
    assert seen[0] is not None
    assert seen[0] <= 2.1


async def test_refusals_bring_the_delay_that_they_name() -> None:
    async def behaviour(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        status = status_pb2.Status(code=8, message="full")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="QUEUE_FULL"))
        delay = Duration(seconds=1, nanos=250_000_000)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        await context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "full", ((STATUS_KEY, status.SerializeToString()),)
        )
        raise AssertionError

    async with method_of(behaviour) as method:
        reply = await method.ask(b"", asyncio.get_running_loop().time(), 5.0)
    assert (reply.code, reply.retry_after_s) == ("RESOURCE_EXHAUSTED", 1.25)


async def test_a_hidden_deadline_is_not_told_but_kept() -> None:
    told: list[float | None] = []

    async def behaviour(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        told.append(context.time_remaining())
        await asyncio.sleep(1)
        return request

    async with method_of(behaviour) as method:
        reply = await Hanging(method).ask(b"", asyncio.get_running_loop().time(), 0.1)
    assert reply.code == "DEADLINE_EXCEEDED"
    assert reply.latency_s < 0.5
    assert told[0] is not None
    assert told[0] > 30
