"""Tells grpc.health.v1 the truth: which services have all their networks ready, polled from the
engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.engine import Engine
from velatura.v1.bundle_pb2 import Role

log = structlog.get_logger("velatura.server.health")

POLL_S = 0.25
OVERALL = ""


def networks_by_service(bundle: Bundle) -> dict[str, list[str]]:
    """The networks that each service cannot do without; a service whose bundle has none of them
    gets an empty list."""
    generators = bundle.manifest.generators
    styles = (
        Role.ROLE_STYLE_PREDICTOR,
        Role.ROLE_STYLE_TRANSFORMER,
        Role.ROLE_PRESET_STYLE,
        Role.ROLE_FIXED_STYLE,
    )
    return {
        "velatura.v1.EditService": [
            name
            for generator in generators
            for name in (generator.synthesis, generator.encoder)
            if name
        ],
        "velatura.v1.GenerateService": [
            name
            for generator in generators
            for name in (generator.synthesis, generator.mapping)
            if name
        ],
        "velatura.v1.SegmentService": [
            entry.name for entry in bundle.models_of(Role.ROLE_SEGMENTER)
        ],
        "velatura.v1.StyleService": [
            entry.name for role in styles for entry in bundle.models_of(role)
        ],
        "inference.GRPCInferenceService": [entry.name for entry in bundle.manifest.models],
    }


class HealthReporter:
    """Keeps a health servicer up to date until it is stopped."""

    def __init__(self, engine: Engine, servicer: health.aio.HealthServicer) -> None:
        self._engine = engine
        self._servicer = servicer
        self._needs = networks_by_service(engine.bundle)
        self._said: dict[str, bool] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say NOT_SERVING for everything: the networks are not warm yet."""
        for service in (OVERALL, "velatura.v1.CatalogService", *self._needs):
            await self._say(service, False)

    async def follow(self) -> None:
        """Report now, and go on in the background."""
        await self._report()
        self._task = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """Say NOT_SERVING for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._servicer.enter_graceful_shutdown()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._report()

    async def _report(self) -> None:
        states = service_states(self._engine, self._needs)
        for service, serving in states.items():
            if self._said.get(service) != serving:
                await self._say(service, serving)

    async def _say(self, service: str, serving: bool) -> None:
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        await self._servicer.set(service, status)
        if service in self._said:
            log.info("health", service=service or "(all)", serving=serving)
        self._said[service] = serving


def service_states(engine: Engine, needs: Mapping[str, Sequence[str]]) -> dict[str, bool]:
    """Whether each service can serve, and, under "", whether every network is ready."""
    states = {
        service: bool(models) and all(engine.ready(model) for model in models)
        for service, models in needs.items()
    }
    everything = all(engine.ready(entry.name) for entry in engine.bundle.manifest.models)
    return {OVERALL: everything, "velatura.v1.CatalogService": True, **states}
