"""Calls by method and code, named as go-grpc-prometheus names them, so that dashboards made for it
work here."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from velatura.server.observability.instruments import (
    CALL_SECONDS,
    MESSAGE_BYTES,
    Exemplar,
    Instruments,
)

UNARY, SERVER_STREAM, UNKNOWN = "unary", "server_stream", "unknown"
# What this service answers with in the ordinary course of things: there from the start, as 0, so
# that rates and ratios have data before the first failure.
USUAL_CODES = (
    "OK", "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION", "INTERNAL", "UNAVAILABLE", "UNAUTHENTICATED",
)  # fmt: skip


class RpcMetrics:
    """The metrics of all methods; `method` hands out those of one."""

    def __init__(self, make: Instruments) -> None:
        method = ("grpc_type", "grpc_service", "grpc_method")
        self.started = make.counter("grpc_server_started_total", "RPCs begun, count.", *method)
        self.handled = make.counter(
            "grpc_server_handled_total", "RPCs ended, count, by status code.", *method, "grpc_code"
        )
        self.seconds = make.histogram(
            "grpc_server_handling_seconds",
            "Time from an RPC's start to its end, seconds, by status code.",
            *method,
            "grpc_code",
            buckets=CALL_SECONDS,
        )
        self.in_flight = make.gauge(
            "grpc_server_in_flight", "RPCs begun and not ended, count.", *method
        )
        self.received = make.counter(
            "grpc_server_msg_received_total", "Messages received, count.", *method
        )
        self.sent = make.counter("grpc_server_msg_sent_total", "Messages sent, count.", *method)
        self.received_bytes = make.histogram(
            "grpc_server_msg_received_bytes",
            "Size of a received message, bytes.",
            *method,
            buckets=MESSAGE_BYTES,
        )
        self.sent_bytes = make.histogram(
            "grpc_server_msg_sent_bytes",
            "Size of a sent message, bytes.",
            *method,
            buckets=MESSAGE_BYTES,
        )
        self.failures = make.counter(
            "velatura_call_failures_total",
            "RPCs that did not end with OK, count, by the reason in their ErrorInfo.",
            "reason",
        )
        self._methods: dict[tuple[str, str, str], MethodMetrics] = {}

    def method(self, kind: str, service: str, name: str) -> MethodMetrics:
        """The metrics of one method of ours: never call it with names that a caller made up."""
        key = (kind, service, name)
        if key not in self._methods:
            self._methods[key] = MethodMetrics(self, *key)
        return self._methods[key]

    def unknown(self) -> MethodMetrics:
        """Those of all calls to methods that are not there, in one."""
        return self.method(UNKNOWN, UNKNOWN, UNKNOWN)


class MethodMetrics:
    """Metrics of one method with their labels bound: looking up labels costs more than counting."""

    def __init__(self, metrics: RpcMetrics, *labels: str) -> None:
        self._metrics = metrics
        self._labels = labels
        self._started: Counter = metrics.started.labels(*labels)
        self._open = 0  # begun and not ended; all calls are the event loop's
        in_flight: Gauge = metrics.in_flight.labels(*labels)
        in_flight.set_function(lambda: self._open)
        self._received: Counter = metrics.received.labels(*labels)
        self._sent: Counter = metrics.sent.labels(*labels)
        self._received_bytes: Histogram = metrics.received_bytes.labels(*labels)
        self._sent_bytes: Histogram = metrics.sent_bytes.labels(*labels)
        self._handled: dict[str, Counter] = {}
        self._seconds: dict[str, Histogram] = {}
        if UNKNOWN not in labels:
            for code in USUAL_CODES:
                self._handled[code] = metrics.handled.labels(*labels, code)

    def begun(self) -> None:
        """A call has begun."""
        self._started.inc()
        self._open += 1

    def message_in(self, nbytes: int) -> None:
        """A message of `nbytes` has arrived."""
        self._received.inc()
        self._received_bytes.observe(nbytes)

    def message_out(self, nbytes: int) -> None:
        """A message of `nbytes` goes out."""
        self._sent.inc()
        self._sent_bytes.observe(nbytes)

    def ended(self, code: str, seconds: float, reason: str = "", exemplar: Exemplar = None) -> None:
        """A call that had begun has ended; `reason` is "" for one that went well."""
        if code not in self._seconds:
            self._handled[code] = self._metrics.handled.labels(*self._labels, code)
            self._seconds[code] = self._metrics.seconds.labels(*self._labels, code)
        self._open -= 1
        self._handled[code].inc()
        self._seconds[code].observe(seconds, exemplar)
        if reason:
            self._metrics.failures.labels(reason).inc()
