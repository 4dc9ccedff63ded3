"""Traces: one span a call, one for each of its stages, and one for each batch, linked both ways.

A batch belongs to all of its requests and to none, so its span starts a trace of its own and links
to every request that was in it; each request's own `infer` span links to the batch. Spans below a
call's are made only where that call is sampled, and where tracing is off there is no `Tracer` at
all: neither costs more than an `if`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PARENT_HEADERS = ("traceparent", "tracestate")
# The statuses that are the server's fault by OpenTelemetry's conventions: UNKNOWN,
# DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS.
FAULTS = frozenset((2, 4, 12, 13, 14, 15))
_propagator = TraceContextTextMapPropagator()


class Tracer:
    """Begins the traces of calls. `batches` samples everything: a batch is traced if one of its
    requests is."""

    def __init__(self, calls: trace.Tracer, batches: trace.Tracer) -> None:
        self.calls = calls
        self.batches = batches

    def begin(self, service: str, method: str, headers: Mapping[str, str]) -> CallTrace | None:
        """The trace of a call that begins now, in the caller's trace where `headers` name one; None
        where it is not sampled.

        The call's span is the current one of the running task from here on.
        """
        parent = _propagator.extract(headers, context=Context())
        span = self.calls.start_span(
            f"{service}/{method}",
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        if not span.is_recording():
            return None
        otel_context.attach(trace.set_span_in_context(span, parent))
        return CallTrace(self, span)


class CallTrace:
    """The trace of one sampled call."""

    __slots__ = ("_span", "_tracer", "trace_id")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block as a span below the current one."""
        with self._tracer.calls.start_as_current_span(name, record_exception=False):
            yield

    def request(self) -> RequestTrace:
        """For a request to a network that the current span makes."""
        return RequestTrace(self._tracer, otel_context.get_current())

    def end(self, code: int, attributes: Mapping[str, str | int], problem: str) -> None:
        """The call ended with gRPC's status `code`."""
        self._span.set_attributes({**attributes, "rpc.grpc.status_code": code})
        if code in FAULTS:
            self._span.set_status(StatusCode.ERROR, problem)
        self._span.end()


class RequestTrace:
    """The part of a call's trace that one request to a network is."""

    __slots__ = ("context", "tracer")

    def __init__(self, tracer: Tracer, context: Context) -> None:
        self.tracer = tracer
        self.context = context

    def waited(self, model: str, items: int, arrived: float, lost: str = "") -> None:
        """It waited from `arrived` (time.monotonic()) until now; `lost` says why it never ran."""
        span = self.tracer.calls.start_span(
            "queue",
            context=self.context,
            attributes={"velatura.model": model, "velatura.items": items},
            start_time=_wall_ns(arrived),
        )
        if lost:
            span.set_status(StatusCode.ERROR, lost)
        span.end()


class BatchTrace:
    """The spans of one batch on the device: its own, and `infer` for each traced request."""

    __slots__ = ("_infers", "_span")

    def __init__(
        self, model: str, reason: str, items: int, requests: Sequence[RequestTrace]
    ) -> None:
        tracer = requests[0].tracer
        attributes: dict[str, str | int] = {"velatura.model": model, "velatura.batch.items": items}
        self._span = tracer.batches.start_span(
            "batch",
            context=Context(),  # no parent
            links=[
                Link(trace.get_current_span(each.context).get_span_context()) for each in requests
            ],
            attributes={**attributes, "velatura.batch.closed_by": reason},
        )
        link = Link(self._span.get_span_context())
        self._infers = [
            tracer.calls.start_span(
                "infer", context=each.context, links=[link], attributes=attributes
            )
            for each in requests
        ]

    def end(self, problem: str = "") -> None:
        """The batch has left the device; `problem` is "" where it went well."""
        for span in (*self._infers, self._span):
            if problem:
                span.set_status(StatusCode.ERROR, problem)
            span.end()


def _wall_ns(moment: float) -> int:
    """A moment of time.monotonic() in nanoseconds of the wall clock."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
