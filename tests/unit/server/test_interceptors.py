"""What happens around a call: a real grpc.aio server in this process, its services misbehaving."""

# ruff: noqa: ARG002 - the parameters are gRPC's

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from velatura.client.channel import Retry, service_config
from velatura.server.engine.errors import QueueFull, Refusal
from velatura.server.engine.standing import Priority, Standing, current_standing
from velatura.server.observability.metrics import Metrics
from velatura.server.rpc.auth import KeyRing
from velatura.server.rpc.call import Call, current_call, slack_of
from velatura.server.rpc.interceptors import CallInterceptor
from velatura.server.rpc.lifecycle import Lifecycle, State
from velatura.server.rpc.observation import Observer
from velatura.v1 import catalog_pb2, catalog_pb2_grpc, generate_pb2, generate_pb2_grpc

Code = grpc.StatusCode
Behaviour = Callable[[], Any]


class Catalog(catalog_pb2_grpc.CatalogServiceServicer):
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def ListStyles(
        self, request: catalog_pb2.ListStylesRequest, context: Any
    ) -> catalog_pb2.ListStylesResponse:
        await self.behaviour()
        return catalog_pb2.ListStylesResponse()


class Generator(generate_pb2_grpc.GenerateServiceServicer):
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.closed = asyncio.Event()
        self.padding = 0

    async def Generate(
        self, request: generate_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[generate_pb2.GenerateResponse]:
        try:
            for index in range(len(request.seeds)):
                if index == 1:
                    await self.behaviour()
                token = b"0" * self.padding
                yield generate_pb2.GenerateResponse(index=index, latent_token=token)
        finally:
            self.closed.set()


class Scene:
    """A server whose services behave as told."""

    def __init__(self, behaviour: Behaviour, deadline_s: float, max_requests: int) -> None:
        self.metrics = Metrics()
        self.lifecycle = Lifecycle(max_requests)
        self.lifecycle.state = State.SERVING
        interceptor = CallInterceptor(
            self.lifecycle, Observer(self.metrics), KeyRing(), deadline_s, 1 << 20
        )
        self.server = grpc.aio.server(interceptors=[interceptor])
        self.generator = Generator(behaviour)
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(behaviour), self.server)
        generate_pb2_grpc.add_GenerateServiceServicer_to_server(self.generator, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def handled(self, code: str) -> float:
        labels = {
            "grpc_type": "unary",
            "grpc_service": "velatura.v1.CatalogService",
            "grpc_method": "ListStyles",
            "grpc_code": code,
        }
        return self.metrics.registry.get_sample_value("grpc_server_handled_total", labels) or 0.0


@asynccontextmanager
async def scene(
    behaviour: Behaviour, deadline_s: float = 30, max_requests: int = 8
) -> AsyncIterator[tuple[Scene, Any, Any]]:
    """The scene with stubs of both its services."""
    made = Scene(behaviour, deadline_s, max_requests)
    await made.server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{made.port}") as channel:
        yield (
            made,
            catalog_pb2_grpc.CatalogServiceStub(channel),
            generate_pb2_grpc.GenerateServiceStub(channel),
        )
    await made.server.stop(0)


async def fine() -> None:
    pass


async def broken() -> None:
    raise KeyError("the secret of the house")


async def slow() -> None:
    await asyncio.sleep(60)


LIST = catalog_pb2.ListStylesRequest()
SEEDS = generate_pb2.GenerateRequest(seeds=[1, 2, 3])


def info_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


async def test_a_defect_is_internal_with_an_id_and_nothing_else() -> None:
    with structlog.testing.capture_logs() as logs:
        async with scene(broken) as (made, catalog, generator):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await catalog.ListStyles(LIST, metadata=(("x-request-id", "id-7"),))
            with pytest.raises(grpc.aio.AioRpcError) as streamed:
                [each async for each in generator.Generate(SEEDS)]
            assert made.handled("INTERNAL") == 1
    assert raised.value.code() is streamed.value.code() is Code.INTERNAL
    assert "secret" not in str(raised.value)
    assert "id-7" in (raised.value.details() or "")
    assert info_of(raised.value).metadata["request_id"] == "id-7"
    found = [each for each in logs if each["event"] == "unexpected error"]
    assert isinstance(found[0]["exc_info"], KeyError)


async def test_a_call_without_a_deadline_gets_the_servers() -> None:
    seen: list[float] = []

    async def behaviour() -> None:
        seen.append(current_call.get().deadline - time.monotonic())
        await asyncio.sleep(60)

    async with scene(behaviour, deadline_s=0.3) as (made, catalog, generator):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await catalog.ListStyles(LIST)
        assert raised.value.code() is Code.DEADLINE_EXCEEDED
        assert info_of(raised.value).reason == "DEADLINE"
        assert 0 < seen[0] <= 0.3
        got = []
        stream = generator.Generate(SEEDS)
        got.append((await stream.read()).index)
        with pytest.raises(grpc.aio.AioRpcError) as streamed:
            got.append((await stream.read()).index)
        assert streamed.value.code() is Code.DEADLINE_EXCEEDED
        assert got == [0], "what was ready was sent"
        assert made.handled("DEADLINE_EXCEEDED") == 1
        assert made.lifecycle.in_flight == 0


async def test_the_callers_deadline_wins() -> None:
    seen: list[float] = []

    async def behaviour() -> None:
        seen.append(current_call.get().deadline - time.monotonic())

    async with scene(behaviour, deadline_s=5) as (_, catalog, _generator):
        await catalog.ListStyles(LIST, timeout=100)
    assert 90 < seen[0] <= 100 + slack_of(100)  # by which gRPC may round it up on its way


@pytest.mark.parametrize(
    ("again", "returns"),
    [
        ([("x-request-id", "mine")], True),
        ([("x-request-id", "another")], False),
        ([("x-request-id", "mine"), ("early", "")], False),
        ([], False),
    ],
)
async def test_who_comes_again_as_told_is_known(again: list[Any], returns: bool) -> None:
    seen: list[bool] = []

    async def behaviour() -> None:
        seen.append(current_standing.get().returning)
        if len(seen) == 1:
            raise QueueFull("m", 0.2, Refusal.DEADLINE, "there is too much ahead")

    async with scene(behaviour) as (_, catalog, _generator):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await catalog.ListStyles(LIST, metadata=[("x-request-id", "mine")])
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        early = ("early", "") in again
        await asyncio.sleep(0.05 if early else 0.25)
        await catalog.ListStyles(LIST, metadata=[each for each in again if each[0] != "early"])
    assert seen == [False, returns]


async def test_grpcs_own_retries_are_known() -> None:
    seen: list[bool] = []

    async def behaviour() -> None:
        seen.append(current_standing.get().returning)
        if len(seen) == 1:
            raise QueueFull("m", 0.05, Refusal.DEADLINE, "there is too much ahead")

    options = [("grpc.enable_retries", 1), ("grpc.service_config", service_config(Retry()))]
    async with (
        scene(behaviour) as (made, _, _generator),
        grpc.aio.insecure_channel(f"127.0.0.1:{made.port}", options=options) as channel,
    ):
        await catalog_pb2_grpc.CatalogServiceStub(channel).ListStyles(LIST)
    assert seen == [False, True]


async def test_a_hung_up_stream_is_closed_and_counted() -> None:
    async with scene(slow) as (made, _, generator):
        call = generator.Generate(SEEDS)
        assert (await call.read()).index == 0
        call.cancel()
        async with asyncio.timeout(10):
            await made.generator.closed.wait()
            assert await made.lifecycle.idle(5)


@pytest.mark.parametrize(
    ("state", "reason"), [(State.STARTING, "STARTING"), (State.DRAINING, "DRAINING")]
)
async def test_no_requests_before_and_after_serving(state: State, reason: str) -> None:
    async with scene(fine) as (made, catalog, _):
        made.lifecycle.state = state
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await catalog.ListStyles(LIST)
        assert raised.value.code() is Code.UNAVAILABLE
        assert info_of(raised.value).reason == reason
        made.lifecycle.state = State.SERVING
        await catalog.ListStyles(LIST)


async def test_requests_over_the_limit_are_refused_and_leave_no_trace() -> None:
    async with scene(slow, max_requests=2) as (made, catalog, _):
        waiting = [catalog.ListStyles(LIST) for _ in range(2)]
        async with asyncio.timeout(10):
            while made.lifecycle.in_flight < 2:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await catalog.ListStyles(LIST)
        assert raised.value.code() is Code.RESOURCE_EXHAUSTED
        for call in waiting:
            call.cancel()
        assert await made.lifecycle.idle(10)
        assert made.handled("CANCELLED") == 2


async def test_a_method_that_is_not_there_is_refused_and_counted_without_its_name() -> None:
    async with scene(fine) as (made, _, _generator):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{made.port}") as channel:
            for path in ("/velatura.v1.CatalogService/Undo", "/no.Such/Thing", "/x/y"):
                calls = (channel.unary_unary(path), channel.unary_stream(path))
                for answer in (calls[0](b"anything"), calls[1](b"anything").read()):
                    with pytest.raises(grpc.aio.AioRpcError) as raised:
                        await answer
                    assert raised.value.code() is Code.UNIMPLEMENTED
                    assert path in (raised.value.details() or "")
                    assert info_of(raised.value).reason == "UNKNOWN_METHOD"
        names = dict.fromkeys(("grpc_type", "grpc_service", "grpc_method"), "unknown")
        value = made.metrics.registry.get_sample_value
        assert value("grpc_server_started_total", names) == 6
        handled = {**names, "grpc_code": "UNIMPLEMENTED"}
        assert value("grpc_server_handled_total", handled) == 6
        services = {
            sample.labels["grpc_service"]
            for family in made.metrics.registry.collect()
            if family.name == "grpc_server_started"
            for sample in family.samples
        }
        assert services == {"unknown"}


async def test_messages_are_counted_with_their_bytes() -> None:
    async with scene(fine) as (made, catalog, generator):
        await catalog.ListStyles(LIST)
        got = [each async for each in generator.Generate(SEEDS)]

        def value(name: str, kind: str, service: str, method: str) -> float | None:
            labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method}
            return made.metrics.registry.get_sample_value(name, labels)

        stream = ("server_stream", "velatura.v1.GenerateService", "Generate")
        assert value("grpc_server_msg_received_total", *stream) == 1
        assert value("grpc_server_msg_received_bytes_sum", *stream) == SEEDS.ByteSize()
        assert value("grpc_server_msg_sent_total", *stream) == 3
        size = sum(each.ByteSize() for each in got)
        assert value("grpc_server_msg_sent_bytes_sum", *stream) == size
        unary = ("unary", "velatura.v1.CatalogService", "ListStyles")
        assert value("grpc_server_msg_sent_total", *unary) == 1
        assert value("grpc_server_msg_sent_bytes_sum", *unary) == 0


async def test_a_stream_dropped_while_its_message_is_on_the_way_is_cancelled_not_ok() -> None:
    async with scene(fine) as (made, _, generator):
        made.generator.padding = 8 << 20  # more than flow control lets out unread
        call = generator.Generate(SEEDS)
        async with asyncio.timeout(10):
            while not made.lifecycle.in_flight:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            call.cancel()
            await made.generator.closed.wait()
            assert await made.lifecycle.idle(5)
        labels = {
            "grpc_type": "server_stream",
            "grpc_service": "velatura.v1.GenerateService",
            "grpc_method": "Generate",
        }
        value = made.metrics.registry.get_sample_value
        cancelled = {**labels, "grpc_code": "CANCELLED"}
        assert value("grpc_server_handled_total", cancelled) == 1
        assert value("grpc_server_in_flight", labels) == 0


async def test_who_hangs_up_at_the_deadline_was_late_and_who_does_before_was_not() -> None:
    async with scene(slow) as (made, catalog, _):
        with pytest.raises(grpc.aio.AioRpcError):
            await catalog.ListStyles(LIST, timeout=0.2)
        call = catalog.ListStyles(LIST, timeout=30)
        async with asyncio.timeout(10):
            while not made.lifecycle.in_flight:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            call.cancel()
            assert await made.lifecycle.idle(5)
        assert made.handled("DEADLINE_EXCEEDED") == 1
        assert made.handled("CANCELLED") == 1


@pytest.mark.parametrize(
    ("timeout_s", "left_s", "late"),
    [(0.1, 0.004, True), (0.1, 0.02, False), (5.0, 0.04, True), (5.0, 0.2, False)],
)
def test_a_callers_clock_may_be_ahead_by_what_grpc_rounds(
    timeout_s: float, left_s: float, late: bool
) -> None:
    assert Call("id", time.monotonic() + left_s, slack_of(timeout_s)).late() is late
    assert not Call("id", time.monotonic() + left_s).late(), "the server's own deadline is exact"


async def test_one_line_a_call_tells_what_it_took() -> None:
    async def behaviour() -> None:
        record = current_call.get().record
        with record.stage("decode"):
            await asyncio.sleep(0.01)
        record.pixels_in = 6144
        record.dispatched("net", 8, 0.002)
        record.dispatched("net", 8, 0.001)
        record.dispatched("net", 2, 0.0)

    with structlog.testing.capture_logs() as logs:
        async with scene(behaviour) as (_, catalog, _generator):
            await catalog.ListStyles(LIST)
    (line,) = [each for each in logs if each["event"] == "call"]
    assert line["code"] == "OK"
    assert line["milliseconds"] >= 10
    assert 9 <= line["stages_ms"].pop("decode") <= line["milliseconds"]
    assert {key: line[key] for key in ("bytes_in", "bytes_out", "pixels_in", "queue_ms")} == {
        "bytes_in": 0, "bytes_out": 0, "pixels_in": 6144, "queue_ms": 3.0,
    }  # fmt: skip
    assert line["batches"] == {"net": {"2": 1, "8": 2}}
    assert "trace_id" not in line


async def test_validation_comes_before_the_service() -> None:
    async def never() -> None:
        raise AssertionError("the service was called")

    async with scene(never) as (_, _catalog, generator):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            [each async for each in generator.Generate(generate_pb2.GenerateRequest())]
        assert raised.value.code() is Code.INVALID_ARGUMENT
        assert info_of(raised.value).metadata["field"] == "seeds"


async def test_the_scheduler_learns_who_calls_and_how_urgently() -> None:
    seen: list[Standing] = []

    async def note() -> None:
        seen.append(current_standing.get())

    async with scene(note) as (made, catalog, _):
        await catalog.ListStyles(LIST, metadata=(("velatura-priority", "high"),))
        await catalog.ListStyles(LIST)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await catalog.ListStyles(LIST, metadata=(("velatura-priority", "first"),))
        assert made.handled("INVALID_ARGUMENT") == 1
    assert [each.priority for each in seen] == [Priority.HIGH, Priority.NORMAL]
    assert {each.caller for each in seen} == {"127.0.0.1"}
    assert raised.value.code() is Code.INVALID_ARGUMENT
    assert info_of(raised.value).reason == "INVALID_FIELD"
