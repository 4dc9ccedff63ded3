"""Every Prometheus metric of the service, in one registry of its own, and the HTTP endpoint that
shows them.

Base units everywhere (seconds, bytes, pixels); counters end in `_total`. Labels are closed sets or
names from the bundle, so that no caller can make the number of series grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

# From a cached answer to a large picture on a slow CPU.
LATENCY_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Metrics:
    """Owns the registry. One per process (or per test); nothing is registered globally."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._server: Any = None
        self._thread: Thread | None = None
        self._declare_rpc()
        self._declare_scheduler()
        self._declare_models()
        self._declare_imaging()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS
    ) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _declare_rpc(self) -> None:
        rpc = ("service", "method")
        self.rpc_started = self._counter(
            "velatura_grpc_server_started_total", "RPCs begun, count.", *rpc
        )
        self.rpc_handled = self._counter(
            "velatura_grpc_server_handled_total",
            "RPCs ended, count, by status code.",
            *rpc,
            "code",
        )
        self.rpc_seconds = self._histogram(
            "velatura_grpc_server_handling_seconds",
            "Time from an RPC's start to its end, seconds, by status code.",
            *rpc,
            "code",
        )
        self.rpc_in_flight = self._gauge(
            "velatura_grpc_server_in_flight", "RPCs begun and not ended, count.", *rpc
        )
        self.build_info = self._gauge(
            "velatura_build_info",
            "Always 1; the labels say which build runs.",
            "version",
            "python",
            "bundle",
            "bundle_sha256",
        )

    def _declare_scheduler(self) -> None:
        self.requests = self._counter(
            "velatura_model_requests_total",
            "Requests to a network, count, by outcome.",
            "model",
            "outcome",
        )
        self.batch_size = self._histogram(
            "velatura_batch_size",
            "Items in a batch that was run, count.",
            "model",
            buckets=tuple(float(size) for size in BATCH_BUCKETS),
        )
        self.batch_closed = self._counter(
            "velatura_batch_closed_total",
            "Batches that were run, count, by what closed them: full, device_free, delay or retry.",
            "model",
            "reason",
        )
        self.queue_depth = self._gauge(
            "velatura_queue_depth", "Items that wait for the device, count.", "model"
        )
        self.queue_bytes = self._gauge(
            "velatura_queue_bytes", "Size of the items that wait for the device, bytes.", "model"
        )
        self.queue_wait = self._histogram(
            "velatura_queue_wait_seconds", "Time from arrival to the device, seconds.", "model"
        )
        self.inference = self._histogram(
            "velatura_inference_seconds", "Time of one batch on the device, seconds.", "model"
        )
        self.refusals = self._counter(
            "velatura_admission_refusals_total",
            "Requests refused at arrival, count, by reason.",
            "model",
            "reason",
        )
        self.dropped = self._counter(
            "velatura_queue_dropped_total",
            "Items that left the queue without a run, count, by reason: cancelled, expired, "
            "failed or drained.",
            "model",
            "reason",
        )
        self.cost = self._gauge(
            "velatura_model_cost_seconds",
            "Learned cost of a batch of n items, a*n+b, seconds.",
            "model",
            "coefficient",
        )

    def _declare_models(self) -> None:
        self.failures = self._counter(
            "velatura_model_failures_total",
            "Runs of a network that failed, count, by reason.",
            "model",
            "reason",
        )
        self.model_ready = self._gauge(
            "velatura_model_ready", "1 where the network takes requests, else 0.", "model"
        )
        self.model_info = self._gauge(
            "velatura_model_info",
            "Always 1; the labels describe a network of the bundle.",
            "model",
            "version",
            "role",
            "sha256",
            "provider",
        )
        self.provider_info = self._gauge(
            "velatura_provider_info",
            "Networks that run on an execution provider, count.",
            "requested",
            "provider",
            "onnxruntime_version",
        )
        self.provider_fallback = self._counter(
            "velatura_provider_fallback_total",
            "Times that the CPU was taken where CUDA was asked for or hoped for, count.",
            "requested",
            "reason",
        )

    def _declare_imaging(self) -> None:
        self.codec_seconds = self._histogram(
            "velatura_codec_seconds",
            "Time to decode or encode one image, seconds.",
            "operation",
            "format",
        )
        self.pixels = self._counter(
            "velatura_pixels_total",
            "Pixels decoded from or encoded into images, count.",
            "operation",
        )

    def for_model(self, model: str) -> ModelMetrics:
        """The scheduler's metrics of one network, with their label already bound."""
        return ModelMetrics(
            model=model,
            metrics=self,
            batch_size=self.batch_size.labels(model),
            queue_depth=self.queue_depth.labels(model),
            queue_bytes=self.queue_bytes.labels(model),
            queue_wait=self.queue_wait.labels(model),
            inference=self.inference.labels(model),
            cost_a=self.cost.labels(model, "a"),
            cost_b=self.cost.labels(model, "b"),
            ready=self.model_ready.labels(model),
        )

    def serve_metrics(self, host: str, port: int) -> int:
        """Answer GET /metrics on a thread of its own until `close`; returns the port (useful where
        it was 0).

        Raises OSError, naming the address, where it cannot be bound, and RuntimeError when already
        serving.
        """
        if self._server is not None:
            raise RuntimeError("metrics are already served; close() first")
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot serve metrics on {host}:{port}: {error.strerror or error}"
            ) from error
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop the HTTP endpoint and free its port; nothing happens where there is none."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self._server = self._thread = None


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """Metrics of one network. Looking up labels costs more than counting, so what every batch needs
    is bound.
    """

    model: str
    metrics: Metrics
    batch_size: Histogram
    queue_depth: Gauge
    queue_bytes: Gauge
    queue_wait: Histogram
    inference: Histogram
    cost_a: Gauge
    cost_b: Gauge
    ready: Gauge

    def outcome(self, outcome: str) -> None:
        """Count one request by how it ended."""
        self.metrics.requests.labels(self.model, outcome).inc()

    def refused(self, reason: str) -> None:
        """Count one request that was not admitted."""
        self.metrics.refusals.labels(self.model, reason).inc()

    def closed(self, reason: str) -> None:
        """Count one batch by what closed it."""
        self.metrics.batch_closed.labels(self.model, reason).inc()

    def dropped(self, reason: str, items: int) -> None:
        """Count items that left the queue without a run."""
        self.metrics.dropped.labels(self.model, reason).inc(items)

    def failed(self, reason: str) -> None:
        """Count one failed run."""
        self.metrics.failures.labels(self.model, reason).inc()
