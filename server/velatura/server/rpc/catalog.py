"""CatalogService: what the server can do."""

# ruff: noqa: ARG002, N802 - names and parameters are gRPC's

from __future__ import annotations

from typing import Any

import grpc

from velatura.server import __version__
from velatura.server.pipelines.errors import Unsupported
from velatura.server.rpc.backend import Backend
from velatura.v1 import catalog_pb2, catalog_pb2_grpc
from velatura.v1.bundle_pb2 import DirectionEntry

Context = grpc.aio.ServicerContext[Any, Any]


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """Reads the bundle and the engine's state."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def ListModels(
        self, request: catalog_pb2.ListModelsRequest, context: Context
    ) -> catalog_pb2.ListModelsResponse:
        """The networks with versions, hashes and state."""
        engine, bundle = self._backend.engine, self._backend.bundle
        models = [
            catalog_pb2.ModelInfo(
                entry=entry, ready=engine.ready(entry.name), provider=engine.provider(entry.name)
            )
            for entry in bundle.manifest.models
        ]
        return catalog_pb2.ListModelsResponse(
            bundle_name=bundle.manifest.name,
            bundle_version=bundle.manifest.version,
            manifest_sha256=bundle.manifest_sha256,
            server_version=__version__,
            models=models,
            generators=bundle.manifest.generators,
        )

    async def ListDirections(
        self, request: catalog_pb2.ListDirectionsRequest, context: Context
    ) -> catalog_pb2.ListDirectionsResponse:
        """The named directions of a generator, without their numbers."""
        generator = self._backend.generator(request.generator)
        known = self._backend.bundle.directions(generator.name)
        return catalog_pb2.ListDirectionsResponse(
            generator=generator.name, directions=[_described(known[name]) for name in sorted(known)]
        )

    async def ListStyles(
        self, request: catalog_pb2.ListStylesRequest, context: Context
    ) -> catalog_pb2.ListStylesResponse:
        """The style presets."""
        styles = self._backend.bundle.styles()
        return catalog_pb2.ListStylesResponse(styles=[styles[name] for name in sorted(styles)])

    async def ListRegionClasses(
        self, request: catalog_pb2.ListRegionClassesRequest, context: Context
    ) -> catalog_pb2.ListRegionClassesResponse:
        """The names that regions may use."""
        segmenter = self._backend.segmenter(request.segmenter)
        if segmenter is None:
            raise Unsupported(
                "segmenter", "the server's bundle has no segmenter.", "Serve another bundle."
            )
        classes = [
            catalog_pb2.RegionClass(index=index, name=name)
            for index, name in enumerate(segmenter.labels)
        ]
        return catalog_pb2.ListRegionClassesResponse(segmenter=segmenter.name, classes=classes)


def _described(direction: DirectionEntry) -> DirectionEntry:
    described = DirectionEntry()
    described.CopyFrom(direction)
    described.ClearField("offsets")
    return described
