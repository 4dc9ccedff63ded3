"""An OTLP collector in this process: takes spans over gRPC, as a real one does, and keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """`spans` in the order of their arrival, `resource` of the last ones; written by threads of
    gRPC, so look once the sender has stopped."""

    address: str = ""
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, str] = field(default_factory=dict)

    def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002 - gRPC's parameters
        for group in request.resource_spans:
            attributes = group.resource.attributes
            self.resource = {each.key: each.value.string_value for each in attributes}
            self.spans.extend(span for scope in group.scope_spans for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        (span,) = self.named(name)
        return span


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port for the block."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    collector.address = f"http://127.0.0.1:{port}"
    server.start()
    yield collector
    server.stop(None).wait()


def attributes_of(span: Span) -> dict[str, str | int]:
    """A span's attributes; integers and strings are all that there are."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
