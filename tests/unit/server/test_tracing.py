"""Spans of calls and batches, collected in memory: which there are, how they hang together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.errors import DeviceFailed
from velatura.server.observability.metrics import Metrics
from velatura.server.observability.otlp import Exporting, TracingOptions
from velatura.server.observability.record import CallRecord, current_record
from velatura.server.observability.tracing import CallTrace
from velatura.server.rpc.observation import Observer

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


class Collected:
    """A tracer, and the spans that have ended."""

    def __init__(self, sampling: float) -> None:
        self.memory = InMemorySpanExporter()
        options = TracingOptions("http://127.0.0.1:1", sampling, "house", "1.2")
        self.exporting = Exporting(options, self.memory)
        self.tracer = self.exporting.tracer

    def spans(self, name: str = "") -> list[ReadableSpan]:
        self.exporting.processor.force_flush()
        return [each for each in self.memory.get_finished_spans() if not name or each.name == name]

    def call(self, **headers: str) -> CallTrace | None:
        return self.tracer.begin("velatura.v1.EditService", "EditImage", headers)


@pytest.fixture
def collected() -> Iterator[Collected]:
    made = Collected(1.0)
    yield made
    made.exporting.close()


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


async def test_a_call_is_a_server_span_with_its_stages_below(collected: Collected) -> None:
    trace = collected.call()
    assert trace is not None
    record = CallRecord(trace)

    async def stage(name: str, inner: str = "") -> None:
        with record.stage(name):
            await asyncio.sleep(0)
            if inner:
                with record.stage(inner):
                    await asyncio.sleep(0)

    await asyncio.gather(stage("decode"), stage("encoder", "inner"))
    trace.end(0, {"velatura.bytes_in": 7}, "")
    (call,) = collected.spans("velatura.v1.EditService/EditImage")
    assert call.kind is SpanKind.SERVER
    assert dict(call.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "velatura.v1.EditService",
        "rpc.method": "EditImage",
        "rpc.grpc.status_code": 0,
        "velatura.bytes_in": 7,
    }
    assert call.resource.attributes["service.name"] == "house"
    assert call.resource.attributes["service.version"] == "1.2"
    parents = {each.name: each.parent.span_id for each in collected.spans() if each.parent}
    (encoder,) = collected.spans("encoder")
    assert parents == {"decode": id_of(call), "encoder": id_of(call), "inner": id_of(encoder)}
    assert f"{trace_of(call):032x}" == trace.trace_id
    assert set(record.timings) == {"decode", "encoder", "inner"}


@pytest.mark.parametrize(("code", "status"), [(3, StatusCode.UNSET), (13, StatusCode.ERROR)])
async def test_only_the_servers_own_faults_are_errors(
    collected: Collected, code: int, status: StatusCode
) -> None:
    trace = collected.call()
    assert trace is not None
    trace.end(code, {}, "REASON")
    (span,) = collected.spans()
    assert span.status.status_code is status


async def test_the_callers_trace_is_continued_and_its_decision_kept() -> None:
    never, always = Collected(0.0), Collected(1.0)
    yes, no = f"{PARENT}-01", f"{PARENT}-00"
    wanted = never.call(traceparent=yes)
    assert wanted is not None
    wanted.end(0, {}, "")
    (span,) = never.spans()
    assert f"{trace_of(span):032x}" in PARENT
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" in PARENT
    assert always.call(traceparent=no) is None
    assert never.call() is None
    assert never.call(traceparent="nonsense") is None
    assert always.call(traceparent="nonsense") is not None
    for each in (never, always):
        each.exporting.close()


async def test_a_call_that_is_not_sampled_makes_no_spans_and_no_record_of_them() -> None:
    never = Collected(0.0)
    observer = Observer(Metrics(enabled=False), never.tracer)
    watched = observer.begin(observer.method("/a.B/C", streams=False), "id", {})
    assert watched.record.trace is None
    assert watched.record.exemplar is None
    with watched.record.stage("decode"):
        assert not get_current_span().get_span_context().is_valid
    watched.end(grpc.StatusCode.OK, None)
    assert never.spans() == []
    never.exporting.close()


# Batches


class Network:
    """Doubles its input, and fails on -1."""

    def run(self, inputs: Any) -> dict[str, Any]:
        if (inputs["x"] == -1).any():
            raise ValueError("poisoned")
        return {"y": inputs["x"] * 2}


@pytest.fixture
async def batcher() -> AsyncIterator[Batcher]:
    metrics = Metrics()
    made = Batcher("net", Network().run, BatchLimits(max_batch_size=8), metrics.for_model("net"))
    yield made
    await made.close()


async def ask(
    batcher: Batcher, collected: Collected | None, value: float, deadline: float | None = None
) -> CallRecord:
    """One call of its own task with one item, traced where `collected` is given."""
    trace = collected.call() if collected else None
    record = CallRecord(trace)
    current_record.set(record)
    try:
        with record.stage("encoder"):
            inputs = {"x": np.full((1, 2), value, np.float32)}
            await batcher.submit(inputs, deadline=deadline)
    except DeviceFailed:
        pass
    finally:
        if trace is not None:
            trace.end(0, {}, "")
    return record


async def test_a_batch_and_its_requests_link_to_each_other(
    batcher: Batcher, collected: Collected
) -> None:
    calls = [ask(batcher, each, 1.0) for each in (collected, None, collected)]
    records = await asyncio.gather(*calls)
    assert [dict(record.batches["net"]) for record in records] == [{3: 1}] * 3
    (batch,) = collected.spans("batch")
    assert batch.parent is None
    assert dict(batch.attributes or {}) == {
        "velatura.model": "net",
        "velatura.batch.items": 3,
        "velatura.batch.closed_by": "device_free",
    }
    encoders = collected.spans("encoder")
    assert {link.context.span_id for link in batch.links} == {id_of(each) for each in encoders}
    assert trace_of(batch) not in {trace_of(each) for each in encoders}
    for name in ("queue", "infer"):
        spans = collected.spans(name)
        assert {each.parent.span_id for each in spans if each.parent} == {
            id_of(each) for each in encoders
        }
        for span in spans:
            assert [link.context.span_id for link in span.links] == (
                [id_of(batch)] if name == "infer" else []
            )
    assert len(collected.spans()) == 2 * 4 + 1, "nothing was made for the call that is not traced"


async def test_spans_do_not_overlap_what_follows_them(
    batcher: Batcher, collected: Collected
) -> None:
    await ask(batcher, collected, 1.0)
    (queue,), (infer,), (stage,) = (collected.spans(n) for n in ("queue", "infer", "encoder"))
    slack = 5_000_000  # the two clocks are read one after the other
    assert stage.start_time is not None
    assert queue.start_time is not None
    assert queue.end_time is not None
    assert infer.start_time is not None
    assert infer.end_time is not None
    assert stage.end_time is not None
    assert stage.start_time <= queue.start_time + slack
    assert queue.end_time <= infer.start_time + slack
    assert infer.end_time <= stage.end_time


async def test_a_poisoned_batch_shows_its_failure_and_the_second_try(
    batcher: Batcher, collected: Collected
) -> None:
    await asyncio.gather(ask(batcher, collected, -1.0), ask(batcher, collected, 1.0))
    batches = collected.spans("batch")
    statuses = [each.status.status_code for each in batches]
    assert statuses == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    reasons = [
        (each.attributes or {})["velatura.batch.closed_by"] for each in collected.spans("batch")
    ]
    assert reasons[1:] == ["retry", "retry"]
    assert len(collected.spans("infer")) == 4


async def test_what_never_ran_says_why(collected: Collected) -> None:
    patient = BatchLimits(max_batch_size=8, max_queue_delay_s=60)
    batcher = Batcher("net", Network().run, patient, Metrics().for_model("net"))
    task = asyncio.create_task(ask(batcher, collected, 1.0))
    while not batcher.queued_items:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await batcher.close()
    (queue,) = collected.spans("queue")
    assert queue.status.status_code is StatusCode.ERROR
    assert queue.status.description == "cancelled"
    assert collected.spans("batch") == []


# Sending


class Dead(InMemorySpanExporter):
    """An exporter that cannot send."""

    def export(self, spans: Any) -> Any:  # noqa: ARG002
        raise ConnectionError("no collector")


async def test_an_exporter_that_fails_disturbs_nobody(batcher: Batcher) -> None:
    made = Collected(1.0)
    broken = Exporting(TracingOptions("http://127.0.0.1:1", 1.0, "house", "1"), Dead())
    made.tracer, made.exporting = broken.tracer, broken
    for _ in range(3):
        record = await ask(batcher, made, 1.0)
        assert record.batches
    broken.processor.force_flush()
    broken.close()
