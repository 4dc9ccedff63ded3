"""Names, units and the endpoint: what dashboards and alerts rely on."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from velatura.server.observability.metrics import Metrics

PROMISED = {
    "velatura_grpc_server_started": "counter",
    "velatura_grpc_server_handled": "counter",
    "velatura_grpc_server_handling_seconds": "histogram",
    "velatura_grpc_server_in_flight": "gauge",
    "velatura_model_requests": "counter",
    "velatura_batch_size": "histogram",
    "velatura_batch_closed": "counter",
    "velatura_queue_depth": "gauge",
    "velatura_queue_wait_seconds": "histogram",
    "velatura_inference_seconds": "histogram",
    "velatura_model_failures": "counter",
    "velatura_admission_refusals": "counter",
    "velatura_model_cost_seconds": "gauge",
    "velatura_codec_seconds": "histogram",
    "velatura_pixels": "counter",
    "velatura_model_info": "gauge",
    "velatura_provider_info": "gauge",
    "velatura_provider_fallback": "counter",
    "velatura_model_ready": "gauge",
    "velatura_build_info": "gauge",
}


def test_promised_metrics_with_units_in_their_help(metrics: Metrics) -> None:
    families = {family.name: family for family in metrics.registry.collect()}
    assert {name: families[name].type for name in PROMISED} == PROMISED
    for name, family in families.items():
        if name.startswith("velatura_"):
            assert family.documentation.endswith(".")
            if name.endswith("_seconds"):
                assert "seconds" in family.documentation


def test_process_metrics_are_there(metrics: Metrics) -> None:
    names = {family.name for family in metrics.registry.collect()}
    assert {"process_resident_memory_bytes", "python_info", "python_gc_objects_collected"} <= names


def test_registries_are_apart() -> None:
    one, other = Metrics(), Metrics()
    one.pixels.labels("decode").inc(5)
    value = other.registry.get_sample_value("velatura_pixels_total", {"operation": "decode"})
    assert value is None


def test_endpoint_serves_and_frees_its_port(metrics: Metrics) -> None:
    metrics.rpc_started.labels("velatura.v1.EditService", "EditImage").inc()
    port = metrics.serve_metrics("127.0.0.1", 0)
    assert port > 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    sample = next(
        sample
        for sample in families["velatura_grpc_server_started"].samples
        if sample.name.endswith("_total")
    )
    assert sample.value == 1.0
    assert sample.labels == {"service": "velatura.v1.EditService", "method": "EditImage"}
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
