"""Traces of a real server: what a collector gets of one EditImage, and what a missing one costs."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from velatura.v1 import edit_pb2, edit_pb2_grpc, region_pb2

from ..running import RunningServer, png
from .collector import Collector, attributes_of, collecting
from .failures import failing

Start = Callable[..., RunningServer]
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PARENT = (("traceparent", f"00-{TRACE}-{CALLER}-01"), ("x-request-id", "traced-1"))


def edit_request(**fields: Any) -> edit_pb2.EditImageRequest:
    layers = edit_pb2.LayerRange(start=0, end=12)
    edit = edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[0.7]))
    part = region_pb2.RegionPart(class_name="mouth")
    region = region_pb2.Region(parts=[part])
    return edit_pb2.EditImageRequest(image=png(96, 64), edits=[edit], region=region, **fields)


@dataclass
class Traced:
    """A stopped server that took three calls: one whose caller traces it, one whose caller does
    not, and one that failed for its caller's fault; and what its collector and its log have."""

    collector: Collector
    events: list[dict[str, Any]]
    exemplars: list[str]


@pytest.fixture(scope="module")
def traced(bundle_path: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    from ..running import start_server

    with collecting() as collector:
        server = start_server(
            bundle_path,
            tmp_path_factory.mktemp("traced"),
            ["--otlp-endpoint", collector.address, "--trace-sampling", "0",
             "--service-name", "tested", "--cache-mib", "0"],  # every call runs its networks
        )  # fmt: skip
        try:
            stub = edit_pb2_grpc.EditServiceStub(server.channel())
            stub.EditImage(edit_request(), timeout=60)
            stub.EditImage(edit_request(), timeout=60, metadata=PARENT)
            other = (("traceparent", f"00-{'1' * 32}-{CALLER}-01"),)
            failing(stub.EditImage, edit_request(generator="none"), metadata=other)
            page = urllib.request.Request(
                f"http://{server.metrics_address}/metrics",
                headers={"Accept": "application/openmetrics-text; version=1.0.0"},
            )
            with urllib.request.urlopen(page, timeout=10) as answer:  # noqa: S310
                lines = answer.read().decode().splitlines()
            server.terminate()
            assert server.wait() == 0
        finally:
            server.stop()
        exemplars = [line for line in lines if f'# {{trace_id="{TRACE}"}}' in line]
        yield Traced(collector, server.events(), exemplars)


def parent_of(traced: Traced, span: Span) -> str:
    """Name of a span's parent."""
    (found,) = [each for each in traced.collector.spans if each.span_id == span.parent_span_id]
    return found.name


def test_the_call_is_a_span_in_its_callers_trace(traced: Traced) -> None:
    calls = traced.collector.named("velatura.v1.EditService/EditImage")
    assert len(calls) == 2, "the call that nobody wanted traced is not there"
    call = next(each for each in calls if each.trace_id.hex() == TRACE)
    assert call.parent_span_id.hex() == CALLER
    assert call.kind == Span.SPAN_KIND_SERVER
    assert traced.collector.resource["service.name"] == "tested"
    found = attributes_of(call)
    assert found["rpc.system"] == "grpc"
    assert found["rpc.service"] == "velatura.v1.EditService"
    assert found["rpc.method"] == "EditImage"
    assert found["rpc.grpc.status_code"] == 0
    assert found["velatura.request_id"] == "traced-1"
    assert found["velatura.pixels_in"] == 96 * 64
    failed = next(each for each in calls if each.trace_id.hex() == "1" * 32)
    assert attributes_of(failed)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]


def test_its_stages_are_spans_below_it(traced: Traced) -> None:
    method = "velatura.v1.EditService/EditImage"
    inside = [each for each in traced.collector.spans if each.trace_id.hex() == TRACE]
    call = next(each for each in inside if each.name == method)
    for stage in ("decode", "encoder", "segmenter", "generator", "composite", "encode"):
        spans = [each for each in inside if each.name == stage]
        assert len(spans) == 1, stage
        assert spans[0].parent_span_id == call.span_id
        assert call.start_time_unix_nano <= spans[0].start_time_unix_nano
        assert spans[0].end_time_unix_nano <= call.end_time_unix_nano
    order = [
        min(each.start_time_unix_nano for each in inside if each.name == stage)
        for stage in ("decode", "encoder", "generator", "composite", "encode")
    ]
    assert order == sorted(order)


def test_each_network_waits_runs_and_links_to_its_batch(traced: Traced) -> None:
    batches = {each.span_id: each for each in traced.collector.named("batch")}
    assert len(batches) == 3, "one for each of encoder, segmenter and generator"
    for name in ("queue", "infer"):
        spans = traced.collector.named(name)
        assert {parent_of(traced, each) for each in spans} == {"encoder", "segmenter", "generator"}
    for infer in traced.collector.named("infer"):
        (link,) = infer.links
        batch = batches[link.span_id]
        assert link.trace_id == batch.trace_id
        assert batch.trace_id.hex() != TRACE
        assert not batch.parent_span_id
        assert [each.span_id for each in batch.links] == [infer.parent_span_id]
        assert [each.trace_id.hex() for each in batch.links] == [TRACE]
        found = attributes_of(batch)
        assert found["velatura.model"] == attributes_of(infer)["velatura.model"]
        assert found["velatura.batch.closed_by"] == "device_free"
        items = {"avatar-encoder": 1, "avatar-segmenter": 2, "avatar-synthesis": 2}
        assert found["velatura.batch.items"] == items[str(found["velatura.model"])]


def test_log_and_metrics_lead_to_the_trace(traced: Traced) -> None:
    lines = [each for each in traced.events if each["event"] == "call"]
    assert [line.get("trace_id") for line in lines] == [None, TRACE, "1" * 32]
    names = {line.partition("{")[0] for line in traced.exemplars}
    assert names == {
        "grpc_server_handling_seconds_bucket",
        "velatura_queue_wait_seconds_bucket",
        "velatura_inference_seconds_bucket",
        "velatura_codec_seconds_bucket",
    }


def test_without_a_collector_nobody_notices(start: Start) -> None:
    server = start("--otlp-endpoint", "http://127.0.0.1:1", "--trace-sampling", "1")
    stub = edit_pb2_grpc.EditServiceStub(server.channel())
    for _ in range(5):
        assert stub.EditImage(edit_request(), timeout=60).latent_token
    server.terminate()
    began = time.monotonic()
    assert server.wait(30) == 0
    assert time.monotonic() - began < 20
    assert all("Traceback" not in str(event) for event in server.events())
