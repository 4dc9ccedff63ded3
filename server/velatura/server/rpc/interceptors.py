"""What happens around every call of our own services: admission, parsing, validation, deadline, id,
metrics, trace, log, and the translation of errors. Health, reflection and channelz pass through
untouched; the Open Inference Protocol's questions after the server's state are answered in every
state; a method that is not there is refused like everything else, and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from velatura.server.engine.errors import QueueFull
from velatura.server.engine.standing import current_standing
from velatura.server.pipelines.errors import InvalidRequest
from velatura.server.rpc import constraints
from velatura.server.rpc.auth import KeyRing
from velatura.server.rpc.call import Call, current_call, current_tenant, request_id_of, slack_of
from velatura.server.rpc.callers import standing_of
from velatura.server.rpc.errors import (
    REQUEST_ID,
    Failure,
    MessageTooLarge,
    UnknownMethod,
    failure_of,
    internal,
    message_of,
    trailers,
    with_request,
)
from velatura.server.rpc.lifecycle import Lifecycle
from velatura.server.rpc.observation import MAX_PATH, Observed, Observer, Target
from velatura.server.rpc.turned_away import PREVIOUS_ATTEMPTS, TurnedAway

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
        observer: Observer,
        keys: KeyRing,
        default_deadline_s: float,
        message_bytes: int,
    ) -> None:
        self._lifecycle = lifecycle
        self._observer = observer
        self._keys = keys
        self._default_deadline_s = default_deadline_s
        self._message_bytes = message_bytes
        self._turned_away = TurnedAway()
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """The handler with everything around it."""
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None:
            return self._missing(method)
        if not method.startswith(OURS):
            return handler
        wrapped = self._wrap(method, handler)
        self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        # The handler gets and gives raw bytes: a malformed message has a clear status then, and
        # sizes are known.
        parse, write = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            target = self._observer.method(method, streams=False)
            return grpc.unary_unary_rpc_method_handler(
                self._unary(target, handler.unary_unary, parse, write)
            )
        if handler.unary_stream is not None:
            target = self._observer.method(method, streams=True)
            return grpc.unary_stream_rpc_method_handler(
                self._stream(target, handler.unary_stream, parse, write)
            )
        raise TypeError(f"{method} takes a stream of messages, which nothing here prepares for")

    def _missing(self, method: str) -> Handler:
        """What answers calls to a method that is not there."""

        async def refuse(_requests: Any, context: Context) -> AsyncIterator[bytes]:
            async with self._around(self._observer.unknown(method), context):
                raise UnknownMethod(method[:MAX_PATH])
            yield b""  # makes it a stream, which any client's kind of call can be answered with

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _unary(self, target: Target, behaviour: Any, parse: Any, write: Any) -> Any:
        state = target.path in STATE_METHODS

        async def serve(raw: bytes, context: Context) -> Any:
            async with self._around(target, context) as (call, watched):
                watched.received(len(raw))
                with self._admitted(state, context):
                    request = self._parsed(raw, parse)
                    async with asyncio.timeout(call.deadline - time.monotonic()):
                        answer = await behaviour(request, context)
                        if not isinstance(answer, bytes):  # else written by the method itself
                            answer = write(answer)
                watched.sent(len(answer))
                return answer

        return serve

    def _stream(self, target: Target, behaviour: Any, parse: Any, write: Any) -> Any:
        async def serve(raw: bytes, context: Context) -> AsyncIterator[Any]:
            async with self._around(target, context) as (call, watched):
                watched.received(len(raw))
                with self._admitted(False, context):
                    request = self._parsed(raw, parse)
                    responses = behaviour(request, context)
                    try:
                        async with asyncio.timeout(call.deadline - time.monotonic()):
                            async for response in responses:
                                answer = write(response)
                                watched.sent(len(answer))
                                yield answer
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
    def _admitted(self, always: bool, context: Context) -> Iterator[None]:
        metadata = context.invocation_metadata() or ()
        tenant = self._keys.check(metadata)
        current_tenant.set(tenant)
        if not always:
            returning = current_call.get().returning
            peer = context.peer() or ""
            current_standing.set(standing_of(metadata, peer, tenant, returning=returning))
        with nullcontext() if always else self._lifecycle.request():
            yield

    @asynccontextmanager
    async def _around(
        self, target: Target, context: Context
    ) -> AsyncIterator[tuple[Call, Observed]]:
        """Id, deadline, metrics, trace, log and errors of one call."""
        headers = dict(context.invocation_metadata() or ())
        request_id = request_id_of(headers.get(REQUEST_ID))
        watched = self._observer.begin(target, request_id, headers)
        call = self._call(request_id, headers, context, watched)
        current_call.set(call)
        code, failure = grpc.StatusCode.OK, None
        try:
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            yield call, watched
        except (asyncio.CancelledError, GeneratorExit):
            # gRPC cancels the task both when the caller hangs up and when the caller's deadline
            # passes; a stream that it was just sending from is closed.
            late = call.late()
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            failure = _described(error, call)
            code = failure.code
            if isinstance(error, QueueFull) and REQUEST_ID in headers:
                self._turned_away.told(request_id, error.retry_after_s)
        finally:
            watched.end(code, failure)
        if failure is not None:
            await context.abort(
                failure.code, message_of(failure), trailers(failure, call.request_id)
            )

    def _call(
        self, request_id: str, headers: Mapping[str, object], context: Context, watched: Observed
    ) -> Call:
        remaining = context.time_remaining()
        limit = self._default_deadline_s if remaining is None else remaining
        slack = 0.0 if remaining is None else slack_of(limit)
        as_told = self._turned_away.comes_as_told(request_id) or PREVIOUS_ATTEMPTS in headers
        return Call(request_id, time.monotonic() + limit, slack, watched.record, as_told)


def _described(error: Exception, call: Call) -> Failure:
    failure = failure_of(error)
    if failure is None:
        log.error("unexpected error", exc_info=error)
        failure = internal(call.request_id)
    elif failure.reason == "DEVICE_FAILED":
        log.error("device failed", error=str(error))
    return with_request(failure, call.request_id)
