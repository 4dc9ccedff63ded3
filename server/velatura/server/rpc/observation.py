"""What is counted, timed, traced and logged about one call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import grpc
import structlog

from velatura.server.observability.metrics import Metrics
from velatura.server.observability.record import CallRecord, current_record
from velatura.server.observability.rpc_metrics import SERVER_STREAM, UNARY, MethodMetrics
from velatura.server.observability.tracing import PARENT_HEADERS, Tracer
from velatura.server.rpc.errors import Failure

log = structlog.get_logger("velatura.server.rpc")

# Of a path that a caller made up; our own are shorter.
MAX_PATH = 200
MAX_ERROR = 300


@dataclass(frozen=True, slots=True)
class Target:
    """A method as it is counted, traced and logged."""

    path: str
    service: str
    name: str
    metrics: MethodMetrics


class Observer:
    """Watches calls; one for all of them. Without a tracer no span is ever made."""

    def __init__(self, metrics: Metrics, tracer: Tracer | None = None) -> None:
        self._metrics = metrics
        self._tracer = tracer

    def method(self, path: str, streams: bool) -> Target:
        """A method of ours; `streams` where it answers with several messages."""
        service, _, name = path.strip("/").partition("/")
        kind = SERVER_STREAM if streams else UNARY
        return Target(path, service, name, self._metrics.rpc.method(kind, service, name))

    def unknown(self, path: str) -> Target:
        """A method that is not there, whatever it is called: all of them are counted as one."""
        return Target(path[:MAX_PATH], "unknown", "unknown", self._metrics.rpc.unknown())

    def begin(self, target: Target, request_id: str, headers: Mapping[str, object]) -> Observed:
        """A call has begun; its record is the running task's from here on."""
        trace = None
        if self._tracer is not None:
            carrier = {key: str(headers[key]) for key in PARENT_HEADERS if key in headers}
            trace = self._tracer.begin(target.service, target.name, carrier)
        record = CallRecord(trace)
        # Every call has a task of its own, whose context ends with it: nothing has to be undone.
        current_record.set(record)
        bound = {"request_id": request_id, "method": target.path}
        if trace is not None:
            bound["trace_id"] = trace.trace_id
        structlog.contextvars.bind_contextvars(**bound)
        target.metrics.begun()
        return Observed(target, request_id, record)


class Observed:
    """One call being watched; `end` it once."""

    def __init__(self, target: Target, request_id: str, record: CallRecord) -> None:
        self.record = record
        self._target = target
        self._request_id = request_id
        self._start = time.monotonic()

    def received(self, nbytes: int) -> None:
        """Its message has arrived."""
        self.record.bytes_in += nbytes
        self._target.metrics.message_in(nbytes)

    def sent(self, nbytes: int) -> None:
        """A message goes out."""
        self.record.bytes_out += nbytes
        self._target.metrics.message_out(nbytes)

    def end(self, code: grpc.StatusCode, failure: Failure | None) -> None:
        """It is over: count it, close its span, log it."""
        seconds = time.monotonic() - self._start
        reason = "" if code is grpc.StatusCode.OK else code.name
        if failure is not None:
            reason = failure.reason
        record = self.record
        self._target.metrics.ended(code.name, seconds, reason, record.exemplar)
        fields = {"code": code.name, "milliseconds": round(seconds * 1000, 1), **record.fields()}
        if failure is not None:
            fields |= {"reason": failure.reason, "error": failure.message[:MAX_ERROR]}
        # Once the answer is on its way: nobody waits for the line.
        asyncio.get_running_loop().call_soon(partial(log.info, "call", **fields))
        if record.trace is not None:
            attributes: dict[str, str | int] = {
                "velatura.request_id": self._request_id,
                "velatura.bytes_in": record.bytes_in,
                "velatura.bytes_out": record.bytes_out,
                "velatura.pixels_in": record.pixels_in,
            }
            record.trace.end(code.value[0], attributes, reason)
