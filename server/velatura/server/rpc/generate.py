"""GenerateService: Generate."""

# ruff: noqa: ARG002, N802 - names and parameters are gRPC's

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from velatura.server.engine.bundle import Bundle
from velatura.server.pipelines.errors import UnknownThing, Unsupported
from velatura.server.pipelines.generate import Mixing, SampleOrder, generate
from velatura.server.pipelines.generate_classes import ClassOrder, generate_classes
from velatura.server.pipelines.job import Job
from velatura.server.rpc.backend import Backend, versions
from velatura.server.rpc.images import output_format, write_image
from velatura.server.rpc.steps import read_layers, read_steps
from velatura.server.rpc.tokens import write_token
from velatura.v1 import generate_pb2, generate_pb2_grpc
from velatura.v1.bundle_pb2 import GeneratorEntry, ModelEntry, Role

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_PSI = 0.7


class GenerateServicer(generate_pb2_grpc.GenerateServiceServicer):
    """Translates requests to `SampleOrder` or `ClassOrder`, and each sample back."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def Generate(
        self, request: generate_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generate_pb2.GenerateResponse]:
        """One image for each seed, each sent as soon as it is done."""
        backend, job = self._backend, self._backend.job()
        wanted = output_format(request.output)
        model = class_generator(backend.bundle, request.generator)
        if model is not None:
            generating, sha256 = generate_classes(job, class_order(request, model)), ""
        else:
            generator = backend.generator(request.generator)
            order = await self._order(job, request, generator)
            generating, sha256 = generate(job, order), backend.synthesis_sha256(generator)
        async with aclosing(generating) as samples:
            async for sample in samples:
                image = await write_image(job, backend, sample.picture, request.output, wanted)
                latents = sample.w_plus
                yield generate_pb2.GenerateResponse(
                    index=sample.index,
                    seed=sample.seed,
                    image=image,
                    latent_token=b"" if latents is None else write_token(latents, sha256),
                    models=versions(job),
                )

    async def _order(
        self, job: Job, request: generate_pb2.GenerateRequest, generator: GeneratorEntry
    ) -> SampleOrder:
        mixing = None
        if request.HasField("mixing"):
            mixing = Mixing(request.mixing.seed, read_layers(request.mixing.layers, "mixing"))
        return SampleOrder(
            seeds=list(request.seeds),
            truncation_psi=psi_of(request),
            generator=generator,
            steps=await read_steps(job, self._backend, request.edits, generator),
            directions=self._backend.bundle.directions(generator.name),
            mixing=mixing,
            class_name=request.class_name,
        )


def psi_of(request: generate_pb2.GenerateRequest) -> float:
    """The truncation asked for, or the usual one."""
    return request.truncation_psi if request.HasField("truncation_psi") else DEFAULT_PSI


def class_generator(bundle: Bundle, name: str) -> ModelEntry | None:
    """The class-conditional network `name`, or None for a generator of W+.

    "" is the bundle's default generator, and where it has none, its first class-conditional
    network. Raises UnknownThing for a name of neither kind.
    """
    generators = [entry.name for entry in bundle.manifest.generators]
    models = {entry.name: entry for entry in bundle.models_of(Role.ROLE_CLASS_GENERATOR)}
    if not name and not generators:
        return next(iter(models.values()), None)
    if name and name not in generators and name not in models:
        raise UnknownThing("generator", name, [*generators, *models], "generator")
    return models.get(name)


def class_order(request: generate_pb2.GenerateRequest, model: ModelEntry) -> ClassOrder:
    """Raises Unsupported for what only latents of W+ can do."""
    for field, asked in (("mixing", request.HasField("mixing")), ("edits", bool(request.edits))):
        if asked:
            raise Unsupported(
                field,
                f"the generator {model.name!r} has no W+ latents.",
                f"Leave {field} out, or choose one of the generators that ListModels shows.",
            )
    return ClassOrder(
        seeds=list(request.seeds),
        truncation_psi=psi_of(request),
        model=model,
        class_name=request.class_name,
    )
