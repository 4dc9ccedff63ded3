"""Retries, deadlines, limits, metadata and cancellation, of both clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from PIL import Image

from velatura.client import (
    NO_RETRY,
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidArgument,
    Keepalive,
    ResourceExhausted,
    Retry,
    Unavailable,
    Unimplemented,
)

Call = Callable[..., Any]
FACE = Image.linear_gradient("L").resize((40, 30)).convert("RGB")


def failing(
    times: int, code: grpc.StatusCode, pushback_ms: int | None = None
) -> Callable[..., None]:
    """A behaviour that fails the first `times` calls."""
    left = [times]

    def behave(_: Any, context: grpc.ServicerContext) -> None:
        left[0] -= 1
        if left[0] >= 0:
            if pushback_ms is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(pushback_ms)),))
            context.abort(code, "not now")

    return behave


def test_large_requests_are_retried_too(fake: Any, call: Call) -> None:
    # gRPC's own buffer of 256 KiB would silently turn retries off for nearly every image.
    noise = Image.effect_noise((900, 900), 100)
    fake.behaviours["EditImage"] = failing(2, grpc.StatusCode.UNAVAILABLE)
    result = call("edit_image", noise, {"smile": 1.0}, options={"upload": "raw"})
    assert result.image.tobytes() == noise.tobytes()
    assert len(fake.requests) == 3


def test_a_pushback_takes_the_place_of_the_backoff(fake: Any, call: Call) -> None:
    fake.behaviours["ListStyles"] = failing(1, grpc.StatusCode.RESOURCE_EXHAUSTED, 400)
    started = time.monotonic()
    call("list_styles", options={"retry": Retry(initial_backoff_s=0.01, max_backoff_s=0.01)})
    assert time.monotonic() - started >= 0.4
    assert len(fake.requests) == 2


def test_a_negative_pushback_stops_retries(fake: Any, call: Call) -> None:
    fake.behaviours["ListStyles"] = failing(9, grpc.StatusCode.RESOURCE_EXHAUSTED, -1)
    with pytest.raises(ResourceExhausted):
        call("list_styles")
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("options", "code", "attempts"),
    [
        ({}, grpc.StatusCode.UNAVAILABLE, 4),
        ({"retry": NO_RETRY}, grpc.StatusCode.UNAVAILABLE, 1),
        ({}, grpc.StatusCode.INVALID_ARGUMENT, 1),
        ({}, grpc.StatusCode.INTERNAL, 1),
    ],
)
def test_attempts(
    fake: Any, call: Call, options: dict[str, Any], code: grpc.StatusCode, attempts: int
) -> None:
    fake.behaviours["ListStyles"] = failing(99, code)
    with pytest.raises(Exception, match="not now") as caught:
        call("list_styles", options=options)
    assert caught.value.status is code  # type: ignore[attr-defined]
    assert len(fake.requests) == attempts


def test_details_arrive(fake: Any, call: Call) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="edits[0].direction.name", description="unknown 'smirk'")
    detail = any_pb2.Any()
    detail.Pack(bad)
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="no", details=[detail])

    def refuse(_: Any, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(
            (
                ("grpc-status-details-bin", status.SerializeToString()),
                ("x-request-id", "r-1"),
            )
        )
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    fake.behaviours["EditImage"] = refuse
    with pytest.raises(InvalidArgument, match="unknown 'smirk'") as caught:
        call("edit_image", FACE, {"smirk": 1.0})
    assert caught.value.violations[0].field == "edits[0].direction.name"
    assert caught.value.request_id == "r-1"


def test_deadlines_of_client_and_call(fake: Any, call: Call) -> None:
    left: list[float] = []
    fake.behaviours["ListStyles"] = lambda _, context: left.append(context.time_remaining())
    call("list_styles")
    call("list_styles", options={"timeout": 7})
    call("list_styles", options={"timeout": 7}, timeout=3)
    call("list_styles", timeout=None)
    assert 28 < left[0] <= 30.1  # gRPC rounds up on the wire
    assert 6 < left[1] <= 7.1
    assert 2 < left[2] <= 3.1
    assert left[3] is None or left[3] > 1e6
    fake.behaviours["ListStyles"] = lambda _, __: time.sleep(0.5)
    with pytest.raises(DeadlineExceeded):
        call("list_styles", timeout=0.1)


def test_messages_over_the_limit_are_refused_before_sending(fake: Any, call: Call) -> None:
    with pytest.raises(ResourceExhausted, match="more than the client's max_message_bytes of 500"):
        call(
            "segment",
            Image.effect_noise((99, 99), 50),
            options={"max_message_bytes": 500, "upload": "raw"},
        )
    assert fake.requests == []


def test_images_above_grpcs_own_limit_go_both_ways(call: Call) -> None:
    picture = Image.new("RGB", (1800, 1000), (1, 2, 3))  # 5.4 MB raw; gRPC's default is 4 MiB
    assert call("stylize", picture, "x", options={"upload": "raw"}).image.size == (1800, 1000)


def test_metadata(fake: Any, call: Call) -> None:
    call("list_styles", options={"api_key": "s3cret", "metadata": {"X-Team": "a"}})
    call("list_styles")
    first, second = fake.metadata
    assert first["authorization"] == "Bearer s3cret"
    assert first["x-team"] == "a"
    assert "authorization" not in second
    assert first["x-request-id"] != second["x-request-id"]


def test_nobody_listens(call: Call) -> None:
    with pytest.raises(Unavailable), Client("127.0.0.1:1", retry=NO_RETRY) as client:
        client.list_styles(timeout=5)


def test_unknown_methods_are_unimplemented(fake: Any, call: Call, monkeypatch: Any) -> None:
    from velatura.client import requests

    real = requests.list_styles()
    older = requests.Operation(
        "/velatura.v1.Nope/Nope", real.request, real.response_type, real.parse
    )
    monkeypatch.setattr(requests, "list_styles", lambda: older)
    with pytest.raises(Unimplemented):
        call("list_styles")


def test_leaving_a_stream_early_cancels_it(fake: Any) -> None:
    fake.behaviours["Generate"] = lambda _, __: time.sleep(0.05)
    with Client(fake.target) as client:
        samples = client.generate(range(200))
        assert next(samples).seed == 0
        samples.close()  # type: ignore[attr-defined]
        assert fake.stream_cancelled.wait(5)


async def test_leaving_an_async_stream_early_cancels_it(fake: Any) -> None:
    fake.behaviours["Generate"] = lambda _, __: time.sleep(0.05)
    async with AsyncClient(fake.target) as client:
        samples = client.generate(range(200))
        assert (await anext(samples)).seed == 0
        await samples.aclose()  # type: ignore[attr-defined]
        assert await asyncio.to_thread(fake.stream_cancelled.wait, 5)


async def test_cancelling_a_task_cancels_the_call(fake: Any) -> None:
    active: list[bool] = []

    def slow(_: Any, context: grpc.ServicerContext) -> None:
        for _ in range(100):
            time.sleep(0.02)
            if not context.is_active():
                break
        active.append(context.is_active())

    fake.behaviours["ListStyles"] = slow
    async with AsyncClient(fake.target) as client:
        task = asyncio.create_task(client.list_styles())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(50):
            if active:
                break
            await asyncio.sleep(0.05)
    assert active == [False]


def test_one_client_serves_many_threads(fake: Any) -> None:
    def edit(i: int) -> bool:
        face = Image.new("RGB", (8, 8), (i, 2 * i, 3 * i))
        return client.edit_image(face, {"smile": 1.0}).image.tobytes() == face.tobytes()

    with Client(fake.target) as client, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(edit, range(64)))


async def test_one_async_client_serves_many_tasks(fake: Any) -> None:
    async with AsyncClient(fake.target) as client:
        faces = [Image.new("RGB", (8, 8), (i, i, 7)) for i in range(64)]
        results = await asyncio.gather(*(client.edit_image(f, "smile") for f in faces))
    assert [r.image.tobytes() for r in results] == [f.tobytes() for f in faces]


def test_a_client_may_outlive_its_making_thread_and_needs_no_loop() -> None:
    # Made outside of a loop, as module-level clients are.
    assert "127.0.0.1:1" in repr(AsyncClient("127.0.0.1:1"))


def test_keepalive_reaches_the_channel() -> None:
    from velatura.client.channel import Settings

    options = dict(Settings("x:1", keepalive=Keepalive(60, 5, True)).channel_options())
    assert options["grpc.keepalive_time_ms"] == 60_000
    assert options["grpc.keepalive_timeout_ms"] == 5_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
