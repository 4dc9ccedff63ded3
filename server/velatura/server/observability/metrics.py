"""Every Prometheus metric of the service, in one registry of its own, and the HTTP endpoint that
shows them.

What there is stands in `rpc_metrics`, `model_metrics`, `cache_metrics`, `process_metrics` and
`gpu`.
"""

from __future__ import annotations

from threading import Thread
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from velatura.server.observability.cache_metrics import CachesMetrics
from velatura.server.observability.gpu import watch_gpus
from velatura.server.observability.instruments import Instruments
from velatura.server.observability.model_metrics import ModelMetrics, ModelsMetrics
from velatura.server.observability.process_metrics import ImageMetrics, ServerMetrics
from velatura.server.observability.rpc_metrics import RpcMetrics


class Metrics:
    """Owns the registry. One per process (or per test); nothing is registered globally.

    Where they are not `enabled` every instrument does nothing, and the registry stays empty.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.registry = CollectorRegistry()
        if enabled:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
            watch_gpus(self.registry)
        make = Instruments(self.registry if enabled else None)
        self.rpc = RpcMetrics(make)
        self.models = ModelsMetrics(make)
        self.images = ImageMetrics(make)
        self.caches = CachesMetrics(make)
        self.server = ServerMetrics(make)
        self._server: Any = None
        self._thread: Thread | None = None

    def for_model(self, model: str) -> ModelMetrics:
        """The scheduler's metrics of one network, with their label already bound."""
        return self.models.of(model)

    def serve_metrics(self, host: str, port: int) -> int:
        """Answer GET /metrics on a thread of its own until `close`; returns the port (useful where
        it was 0). Who asks for OpenMetrics gets it, with the exemplars.

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
