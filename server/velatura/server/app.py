"""Composition root: settings → bundle → engine → services → gRPC server; drain and stop."""

from __future__ import annotations

import asyncio
import gc
import platform
import signal
import time
from typing import TYPE_CHECKING

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import disable_created_metrics

from inference import open_inference_pb2, open_inference_pb2_grpc
from velatura.server import __version__
from velatura.server.engine.bundle import Bundle
from velatura.server.engine.cpu_budget import cpu_budget
from velatura.server.engine.engine import SHOWN_HASH, LocalEngine
from velatura.server.engine_settings import engine_options
from velatura.server.health import HealthReporter
from velatura.server.imaging.picture import Limits
from velatura.server.observability.metrics import Metrics
from velatura.server.observability.process_metrics import LoopLag
from velatura.server.observability.rpc_metrics import SERVER_STREAM, UNARY
from velatura.server.pipelines.caches import Caches
from velatura.server.pipelines.workers import Workers
from velatura.server.rpc.auth import KeyRing
from velatura.server.rpc.backend import Backend
from velatura.server.rpc.catalog import CatalogServicer
from velatura.server.rpc.edit import EditServicer
from velatura.server.rpc.generate import GenerateServicer
from velatura.server.rpc.inference import InferenceServicer
from velatura.server.rpc.interceptors import CallInterceptor
from velatura.server.rpc.lifecycle import Lifecycle, State
from velatura.server.rpc.observation import Observer
from velatura.server.rpc.segment import SegmentServicer
from velatura.server.rpc.style import StyleServicer
from velatura.server.settings import MIB, Settings, split_address
from velatura.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    edit_pb2,
    edit_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    segment_pb2,
    segment_pb2_grpc,
    stylize_pb2,
    stylize_pb2_grpc,
)

if TYPE_CHECKING:
    from velatura.server.observability.otlp import Exporting

log = structlog.get_logger("velatura.server")

# Time for answers that are already written to leave the socket.
FLUSH_S = 2.0
# The option is a signed 32-bit number.
MOST_BYTES = 2**31 - 1


class StartError(Exception):
    """The server cannot start; the message is for its operator."""


class App:
    """One server. `start`, then `drain`; or `run` for both with signals."""

    def __init__(self, settings: Settings, bundle: Bundle) -> None:
        self._settings = settings
        # Else every counter has a second series that nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._metrics = Metrics(settings.metrics)
        self.engine = LocalEngine(bundle, engine_options(settings), self._metrics)
        self._workers = Workers(settings.pixel_worker_count, self._metrics.images)
        self.lifecycle = Lifecycle(settings.max_requests)
        self._health = health.aio.HealthServicer()
        self._reporter = HealthReporter(self.engine, self._health)
        self._lag = LoopLag(self._metrics.server.lag, self._metrics.server.tasks)
        self._exporting = exporting(settings)
        self._server: grpc.aio.Server | None = None
        self.address = ""
        self.metrics_address = ""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. A second signal stops at once. Raises what
        `start` raises."""
        stop, now = asyncio.Event(), asyncio.Event()

        def on_signal() -> None:
            (now if stop.is_set() else stop).set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        starting = asyncio.create_task(self.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            try:
                await starting
            except BaseException:
                stopping.cancel()
                await self.close()
                raise
            await stopping
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        draining = asyncio.create_task(self.drain())
        hurry = asyncio.create_task(now.wait())
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurry):
            if not task.done():
                task.cancel()
        await asyncio.gather(draining, hurry, return_exceptions=True)
        await self.close()
        log.info("stopped")

    async def start(self) -> None:
        """Listen (not yet ready), load and warm the networks, then serve. Raises `StartError` and
        engine errors."""
        start = time.monotonic()
        await self._listen()
        self._describe()
        if self._metrics.enabled:
            self._lag.start()
        await self.engine.start()
        # What is there by now stays. Looking through it for garbage would stop every request for
        # some 50 ms, every few hundred calls.
        gc.collect()
        gc.freeze()
        self.lifecycle.state = State.SERVING
        await self._reporter.follow()
        log.info(
            "serving",
            listen=self.address,
            metrics=self.metrics_address,
            bundle=self.engine.bundle.manifest.name,
            models=len(self.engine.bundle.manifest.models),
            seconds=round(time.monotonic() - start, 2),
        )

    async def drain(self) -> None:
        """Turn new requests away, and finish those in work, within the drain limit."""
        self.lifecycle.state = State.DRAINING
        await self._reporter.stop()
        log.info("draining", in_flight=self.lifecycle.in_flight, limit_s=self._settings.drain_s)
        if not await self.lifecycle.idle(self._settings.drain_s):
            log.warning("drain limit reached", cancelled=self.lifecycle.in_flight)
            return
        if self._server is not None:
            await self._server.stop(FLUSH_S)

    async def close(self) -> None:
        """Cancel what is left and let go of everything."""
        if self._server is not None:
            await self._server.stop(0)
        await self._lag.stop()
        await self.engine.close()
        self._workers.close()
        if self._exporting is not None:
            await asyncio.to_thread(self._exporting.close)
        self._metrics.close()

    def _describe(self) -> None:
        """What the metrics tell from the start: build, bundle, limits, and every method at 0."""
        bundle, server = self.engine.bundle, self._metrics.server
        server.describe(
            {"version": __version__, "python": platform.python_version()},
            {
                "name": bundle.manifest.name,
                "version": bundle.manifest.version,
                "sha256": bundle.manifest_sha256[:SHOWN_HASH],
            },
        )
        server.cpus.set(cpu_budget())
        server.requests_limit.set(self._settings.max_requests)
        server.ready.set_function(self._ready)
        self._metrics.rpc.unknown()
        for service in own_services():
            for method in service.methods:
                kind = SERVER_STREAM if method.server_streaming else UNARY
                self._metrics.rpc.method(kind, service.full_name, method.name)

    def _ready(self) -> bool:
        """Asked at every scrape, from the endpoint's thread."""
        models = self.engine.bundle.manifest.models
        serving = self.lifecycle.state is State.SERVING
        return serving and all(self.engine.ready(entry.name) for entry in models)

    async def _listen(self) -> None:
        settings = self._settings
        backend = Backend(
            self.engine,
            self._workers,
            self._metrics,
            Limits(settings.max_image_mib * MIB, settings.max_pixels, settings.max_side),
            Caches(settings.cache_mib * MIB, self._metrics.caches),
        )
        keys = KeyRing.read(settings.api_keys)
        interceptor = CallInterceptor(
            self.lifecycle,
            Observer(self._metrics, self._exporting.tracer if self._exporting else None),
            keys,
            settings.default_deadline_s,
            settings.message_bytes,
        )
        server = grpc.aio.server(interceptors=[interceptor], options=channel_options(settings))
        self._server = server
        edit_pb2_grpc.add_EditServiceServicer_to_server(EditServicer(backend), server)
        stylize_pb2_grpc.add_StyleServiceServicer_to_server(StyleServicer(backend), server)
        segment_pb2_grpc.add_SegmentServiceServicer_to_server(SegmentServicer(backend), server)
        generate_pb2_grpc.add_GenerateServiceServicer_to_server(GenerateServicer(backend), server)
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogServicer(backend), server)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceServicer(backend, self.lifecycle), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        channelz.add_channelz_servicer(server)
        reflection.enable_server_reflection(service_names(), server)
        await self._reporter.start()
        self.address = bind(server, settings)
        self.metrics_address = self._serve_metrics()
        await server.start()

    def _serve_metrics(self) -> str:
        if not self._metrics.enabled:
            return ""
        host, port = split_address(self._settings.metrics_listen)
        try:
            bound = self._metrics.serve_metrics(host.strip("[]"), port)
        except OSError as error:
            problem = error.strerror or str(error)
            raise StartError(
                f"{problem} (--metrics-listen, VELATURA_METRICS_LISTEN). "
                "Is another server running? Choose another port, or 0 for a free one."
            ) from None
        return f"{host}:{bound}"


def bind(server: grpc.aio.Server, settings: Settings) -> str:
    """Bind the gRPC address, with TLS where a certificate is set; returns the address with the real
    port."""
    host, _ = split_address(settings.listen)
    try:
        if settings.tls_cert is not None and settings.tls_key is not None:
            pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
            port = server.add_secure_port(settings.listen, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(settings.listen)
    except RuntimeError:
        port = 0
    if port == 0:
        raise StartError(
            f"cannot listen on {settings.listen} (--listen, VELATURA_LISTEN). "
            "Is another server running there? Choose another address, or port 0 for a free one."
        )
    return f"{host}:{port}"


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    """Options of the gRPC server."""
    return [
        # gRPC refuses without details. Up to here the interceptor does it, naming size and limit.
        ("grpc.max_receive_message_length", min(2 * settings.message_bytes, MOST_BYTES)),
        # An answer is bounded by the pixels that a request may have; its caller sets what it takes.
        ("grpc.max_send_message_length", -1),
        # Otherwise a second server on the same port would silently get half of the calls.
        ("grpc.so_reuseport", 0),
    ]


def exporting(settings: Settings) -> Exporting | None:
    """Where traces go; None where they are off, and then the SDK is not even loaded."""
    if not settings.otlp_endpoint:
        return None
    from velatura.server.observability.otlp import Exporting, TracingOptions

    return Exporting(
        TracingOptions(
            endpoint=settings.otlp_endpoint,
            sampling=settings.trace_sampling,
            service_name=settings.service_name,
            version=__version__,
        )
    )


def own_services() -> list[ServiceDescriptor]:
    """The services that are ours, and the Open Inference Protocol's."""
    files = (
        catalog_pb2, edit_pb2, generate_pb2, segment_pb2, stylize_pb2, open_inference_pb2,
    )  # fmt: skip
    return [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]


def service_names() -> list[str]:
    """Every service, as reflection lists them."""
    return [
        *(service.full_name for service in own_services()),
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
        reflection.SERVICE_NAME,
        "grpc.channelz.v1.Channelz",
    ]
