"""Names, units and the endpoint: what dashboards and alerts rely on."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from velatura.server.observability.metrics import Metrics
from velatura.server.observability.process_metrics import LoopLag

PROMISED = {
    "grpc_server_started": "counter",
    "grpc_server_handled": "counter",
    "grpc_server_handling_seconds": "histogram",
    "grpc_server_in_flight": "gauge",
    "grpc_server_msg_received": "counter",
    "grpc_server_msg_sent": "counter",
    "grpc_server_msg_received_bytes": "histogram",
    "grpc_server_msg_sent_bytes": "histogram",
    "velatura_call_failures": "counter",
    "velatura_model_requests": "counter",
    "velatura_batch_size": "histogram",
    "velatura_batch_closed": "counter",
    "velatura_batch_padding_items": "counter",
    "velatura_lane_runs": "counter",
    "velatura_queue_depth": "gauge",
    "velatura_queue_bytes": "gauge",
    "velatura_queue_wait_seconds": "histogram",
    "velatura_queue_dropped": "counter",
    "velatura_inference_seconds": "histogram",
    "velatura_model_failures": "counter",
    "velatura_admission_refusals": "counter",
    "velatura_admission_stretch_ratio": "gauge",
    "velatura_model_cost_item_seconds": "gauge",
    "velatura_model_cost_batch_seconds": "gauge",
    "velatura_model_batch_limit": "gauge",
    "velatura_model_queue_limit": "gauge",
    "velatura_model_instances": "gauge",
    "velatura_model_info": "gauge",
    "velatura_model_ready": "gauge",
    "velatura_provider_info": "gauge",
    "velatura_provider_fallback": "counter",
    "velatura_codec_seconds": "histogram",
    "velatura_pixels": "counter",
    "velatura_pixel_threads": "gauge",
    "velatura_pixel_tasks_running": "gauge",
    "velatura_pixel_tasks_waiting": "gauge",
    "velatura_ready": "gauge",
    "velatura_requests_limit": "gauge",
    "velatura_build_info": "gauge",
    "velatura_bundle_info": "gauge",
    "velatura_event_loop_lag_seconds": "histogram",
    "velatura_event_loop_tasks": "gauge",
    "velatura_cache_requests": "counter",
    "velatura_single_flight_joined": "counter",
    "velatura_single_flights": "gauge",
    "velatura_cache_evictions": "counter",
    "velatura_cache_bytes": "gauge",
    "velatura_cache_entries": "gauge",
    "velatura_cache_limit_bytes": "gauge",
    "velatura_cpus": "gauge",
    "velatura_threads": "gauge",
}


@pytest.fixture
def described(metrics: Metrics) -> Metrics:
    metrics.server.describe({"version": "1", "python": "3"}, {"name": "b", "sha256": "0a"})
    return metrics


def test_promised_metrics_and_no_others_with_units_in_their_help(described: Metrics) -> None:
    ours = {
        family.name: family
        for family in described.registry.collect()
        if family.name.startswith(("velatura_", "grpc_"))
    }
    assert {name: family.type for name, family in ours.items()} == PROMISED
    for name, family in ours.items():
        assert family.documentation.endswith(".")
        for unit in ("seconds", "bytes"):
            if name.endswith(f"_{unit}"):
                assert unit in family.documentation


def test_every_bucket_rises(described: Metrics) -> None:
    described.rpc.method("unary", "s", "m").ended("OK", 1.0)
    described.for_model("m")
    described.images.codec_seconds.labels("decode", "PNG")
    seen = 0
    for family in described.registry.collect():
        if family.type == "histogram":
            bounds = [float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket")]
            some = bounds[: bounds.index(float("inf"))]
            assert some == sorted(set(some)), family.name
            seen += len(some) > 5
    assert seen == 8


def test_switched_off_nothing_is_there_and_everything_can_be_called() -> None:
    off = Metrics(enabled=False)
    off.server.describe({"version": "1"}, {"name": "b"})
    off.server.ready.set_function(lambda: 1.0)
    method, model = off.rpc.method("unary", "s", "m"), off.for_model("m")
    method.begun()
    method.message_in(5)
    method.ended("OK", 0.1, "reason", {"trace_id": "0" * 32})
    model.closed("full", 3)
    model.waited(0.1)
    model.outcome("ok")
    assert list(off.registry.collect()) == []


def test_an_exemplar_leads_from_a_bucket_to_the_trace(metrics: Metrics) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    metrics.rpc.method("unary", "s", "m").ended("OK", 0.2, exemplar={"trace_id": trace_id})
    port = metrics.serve_metrics("127.0.0.1", 0)
    pages = []
    for wanted in ("application/openmetrics-text; version=1.0.0", "text/plain"):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Accept": wanted}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            pages.append((answer.headers["Content-Type"], answer.read().decode()))
    metrics.close()
    (kind, modern), (_, classic) = pages
    assert kind.startswith("application/openmetrics-text")
    families = {each.name: each for each in openmetrics(modern)}
    (found,) = [s for s in families["grpc_server_handling_seconds"].samples if s.exemplar]
    assert found.exemplar.labels == {"trace_id": trace_id}
    assert found.labels["le"] == "0.25"
    assert found.exemplar.value == 0.2
    assert trace_id not in classic


def test_calls_are_counted_from_begin_to_end(metrics: Metrics) -> None:
    def value(name: str, **more: str) -> float | None:
        labels = {"grpc_type": "unary", "grpc_service": "s", "grpc_method": "m", **more}
        return metrics.registry.get_sample_value(name, labels)

    method = metrics.rpc.method("unary", "s", "m")
    assert metrics.rpc.method("unary", "s", "m") is method
    assert value("grpc_server_handled_total", grpc_code="NOT_FOUND") == 0
    method.begun()
    method.message_in(1000)
    assert value("grpc_server_in_flight") == 1
    method.message_out(10)
    method.ended("NOT_FOUND", 0.5, "UNKNOWN_STYLE")
    assert value("grpc_server_in_flight") == 0
    assert value("grpc_server_started_total") == 1
    assert value("grpc_server_handled_total", grpc_code="NOT_FOUND") == 1
    assert value("grpc_server_handling_seconds_sum", grpc_code="NOT_FOUND") == 0.5
    assert value("grpc_server_msg_received_bytes_sum") == 1000
    assert value("grpc_server_msg_sent_total") == 1
    reason = {"reason": "UNKNOWN_STYLE"}
    assert metrics.registry.get_sample_value("velatura_call_failures_total", reason) == 1


async def test_a_blocked_event_loop_shows(metrics: Metrics) -> None:
    lag = LoopLag(metrics.server.lag, metrics.server.tasks)
    lag.start()
    await asyncio.sleep(0.2)
    time.sleep(0.3)  # noqa: ASYNC251 - the point
    await asyncio.sleep(0.05)
    await lag.stop()
    await lag.stop()
    name = "velatura_event_loop_lag_seconds"
    assert metrics.registry.get_sample_value(f"{name}_count") == 1
    assert (metrics.registry.get_sample_value(f"{name}_sum") or 0) > 0.15
    # This test's and the watch's own.
    assert metrics.registry.get_sample_value("velatura_event_loop_tasks") == 2


def test_process_metrics_are_there(metrics: Metrics) -> None:
    names = {family.name for family in metrics.registry.collect()}
    assert {"process_resident_memory_bytes", "python_info", "python_gc_objects_collected"} <= names


def test_registries_are_apart() -> None:
    one, other = Metrics(), Metrics()
    one.images.pixels.labels("decode").inc(5)
    value = other.registry.get_sample_value("velatura_pixels_total", {"operation": "decode"})
    assert value == 0


def test_endpoint_serves_and_frees_its_port(metrics: Metrics) -> None:
    metrics.rpc.method("unary", "velatura.v1.EditService", "EditImage").begun()
    port = metrics.serve_metrics("127.0.0.1", 0)
    assert port > 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    sample = next(
        sample
        for sample in families["grpc_server_started"].samples
        if sample.name.endswith("_total")
    )
    assert sample.value == 1.0
    assert sample.labels == {
        "grpc_type": "unary",
        "grpc_service": "velatura.v1.EditService",
        "grpc_method": "EditImage",
    }
    with pytest.raises(RuntimeError, match="already served"):
        metrics.serve_metrics("127.0.0.1", 0)
    metrics.close()
    metrics.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert metrics.serve_metrics("127.0.0.1", port) == port
    metrics.close()


def test_taken_port_is_named(metrics: Metrics) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot serve metrics on 127.0.0.1:{port}"):
            metrics.serve_metrics("127.0.0.1", port)
