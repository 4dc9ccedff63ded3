"""Sends the traces away: OpenTelemetry's SDK with its OTLP exporter over gRPC.

Spans are handed over to a thread with a bounded queue. A collector that is slow or gone costs
spans, never a call. The variables OTEL_EXPORTER_OTLP_* (headers, certificate, timeout, compression)
and OTEL_BSP_* (the queue) work as the SDK says.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased

from velatura.server.observability.tracing import Tracer

SCOPE = "velatura.server"
# What is not sent by then is lost: nobody waits for a collector when the server stops.
CLOSE_S = 3.0


@dataclass(frozen=True, slots=True)
class TracingOptions:
    """Where to send (http://host:port, or https:), which share of the calls whose caller has not
    decided, and as whom."""

    endpoint: str
    sampling: float
    service_name: str
    version: str


class Exporting:
    """A tracer whose spans go to a collector, until it is closed."""

    def __init__(self, options: TracingOptions, exporter: SpanExporter | None = None) -> None:
        """`exporter` is for tests."""
        resource = Resource.create(
            {"service.name": options.service_name, "service.version": options.version}
        )
        self._exporter = exporter or OTLPSpanExporter(endpoint=options.endpoint)
        self.processor = BatchSpanProcessor(self._exporter)
        calls = TracerProvider(
            resource=resource,
            sampler=ParentBased(TraceIdRatioBased(options.sampling)),
            shutdown_on_exit=False,
        )
        batches = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
        for provider in (calls, batches):
            provider.add_span_processor(self.processor)
        self.tracer = Tracer(
            calls.get_tracer(SCOPE, options.version), batches.get_tracer(SCOPE, options.version)
        )

    def close(self) -> None:
        """Send what waits, within CLOSE_S seconds; blocks that long at most."""
        closing = Thread(target=self.processor.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        if closing.is_alive():
            self._exporter.shutdown()  # ends its retries
