"""What happens around every call of our own services: admission, parsing, validation, deadline, id,
metrics, log, and the translation of errors. Health, reflection and channelz pass through untouched;
the Open Inference Protocol's questions after the server's state are answered in every state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from velatura.server.observability.metrics import Metrics
from velatura.server.pipelines.errors import InvalidRequest
from velatura.server.rpc import constraints
from velatura.server.rpc.auth import KeyRing
from velatura.server.rpc.call import Call, current_call, request_id_of
from velatura.server.rpc.errors import (
    REQUEST_ID,
    Failure,
    MessageTooLarge,
    failure_of,
    internal,
    message_of,
    trailers,
    with_request,
)
from velatura.server.rpc.lifecycle import Lifecycle

log = structlog.get_logger("velatura.server.rpc")

OURS = ("/velatura.", "/inference.")
STATE_METHODS = frozenset(
    f"/inference.GRPCInferenceService/{name}"
    for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
)
Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:  # the stubs know this class as generic, the class itself is not
    Handler = grpc.RpcMethodHandler[Any, Any]
    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of our services; see the module's text."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        metrics: Metrics,
        keys: KeyRing,
        default_deadline_s: float,
        message_bytes: int,
    ) -> None:
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._keys = keys
        self._default_deadline_s = default_deadline_s
        self._message_bytes = message_bytes

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """The handler with everything around it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OURS):
            return handler
        # The handler gets raw bytes and parses them itself, so that a malformed message has a clear
        # status.
        parse = handler.request_deserializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary, parse),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream, parse),
                response_serializer=handler.response_serializer,
            )
        return handler

    def _unary(self, method: str, behaviour: Any, parse: Any) -> Any:
        async def serve(raw: bytes, context: Context) -> Any:
            async with self._around(method, context) as call:
                with self._admitted(method, context):
                    request = self._parsed(raw, parse)
                    async with asyncio.timeout(call.deadline - time.monotonic()):
                        return await behaviour(request, context)

        return serve

    def _stream(self, method: str, behaviour: Any, parse: Any) -> Any:
        async def serve(raw: bytes, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, context) as call:
                with self._admitted(method, context):
                    request = self._parsed(raw, parse)
                    responses = behaviour(request, context)
                    try:
                        async with asyncio.timeout(call.deadline - time.monotonic()):
                            async for response in responses:
                                yield response
                    finally:
                        await responses.aclose()

        return serve

    def _parsed(self, raw: bytes, parse: Callable[[bytes], Message]) -> Message:
        if len(raw) > self._message_bytes:
            raise MessageTooLarge(len(raw), self._message_bytes)
        try:
            request = parse(raw)
        except DecodeError:
            raise InvalidRequest.of(
                "request",
                "the bytes are not the message that this method takes. Check the client's stubs.",
                "MALFORMED",
            ) from None
        if request.DESCRIPTOR.full_name.startswith("velatura."):
            constraints.check(request)
        return request

    @contextmanager
    def _admitted(self, method: str, context: Context) -> Iterator[None]:
        self._keys.check(context.invocation_metadata() or ())
        with nullcontext() if method in STATE_METHODS else self._lifecycle.request():
            yield

    @asynccontextmanager
    async def _around(self, method: str, context: Context) -> AsyncIterator[Call]:
        """Id, metrics, log and errors of one call."""
        call = self._begin(context)
        token = current_call.set(call)
        service, _, name = method.strip("/").partition("/")
        self._metrics.rpc_started.labels(service, name).inc()
        in_flight = self._metrics.rpc_in_flight.labels(service, name)
        in_flight.inc()
        start, code, failure = time.monotonic(), grpc.StatusCode.OK, None
        structlog.contextvars.bind_contextvars(request_id=call.request_id, method=method)
        try:
            context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
            yield call
        except asyncio.CancelledError:
            # gRPC cancels the task both when the caller hangs up and when the caller's deadline
            # passes.
            late = time.monotonic() >= call.deadline
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            failure = _described(error, call)
            code = failure.code
        finally:
            in_flight.dec()
            seconds = time.monotonic() - start
            self._metrics.rpc_handled.labels(service, name, code.name).inc()
            self._metrics.rpc_seconds.labels(service, name, code.name).observe(seconds)
            _log_end(code, seconds, failure)
            structlog.contextvars.clear_contextvars()
            current_call.reset(token)
        if failure is not None:
            await context.abort(
                failure.code, message_of(failure), trailers(failure, call.request_id)
            )

    def _begin(self, context: Context) -> Call:
        metadata = dict(context.invocation_metadata() or ())
        remaining = context.time_remaining()
        limit = self._default_deadline_s if remaining is None else remaining
        return Call(request_id_of(metadata.get(REQUEST_ID)), time.monotonic() + limit)


def _described(error: Exception, call: Call) -> Failure:
    failure = failure_of(error)
    if failure is None:
        log.error("unexpected error", exc_info=error)
        failure = internal(call.request_id)
    elif failure.reason == "DEVICE_FAILED":
        log.error("device failed", error=str(error))
    return with_request(failure, call.request_id)


def _log_end(code: grpc.StatusCode, seconds: float, failure: Failure | None) -> None:
    fields = {"code": code.name, "milliseconds": round(seconds * 1000, 1)}
    if failure is not None:
        fields |= {"reason": failure.reason, "error": failure.message[:300]}
    log.info("call", **fields)
