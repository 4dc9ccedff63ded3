"""GenerateService: Generate."""

# ruff: noqa: ARG002, N802 - names and parameters are gRPC's

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from velatura.server.pipelines.generate import Mixing, SampleOrder, generate
from velatura.server.rpc.backend import Backend, versions
from velatura.server.rpc.images import output_format, write_image
from velatura.server.rpc.steps import read_layers, read_steps
from velatura.server.rpc.tokens import write_token
from velatura.v1 import generate_pb2, generate_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_PSI = 0.7


class GenerateServicer(generate_pb2_grpc.GenerateServiceServicer):
    """Translates requests to `SampleOrder`, and each sample back."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def Generate(
        self, request: generate_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generate_pb2.GenerateResponse]:
        """One image for each seed, each sent as soon as it is done."""
        backend, job = self._backend, self._backend.job()
        generator = backend.generator(request.generator)
        wanted = output_format(request.output)
        mixing = None
        if request.HasField("mixing"):
            mixing = Mixing(request.mixing.seed, read_layers(request.mixing.layers, "mixing"))
        order = SampleOrder(
            seeds=list(request.seeds),
            truncation_psi=(
                request.truncation_psi if request.HasField("truncation_psi") else DEFAULT_PSI
            ),
            generator=generator,
            steps=await read_steps(job, backend, request.edits, generator),
            directions=backend.bundle.directions(generator.name),
            mixing=mixing,
            class_name=request.class_name,
        )
        sha256 = backend.synthesis_sha256(generator)
        async with aclosing(generate(job, order)) as samples:
            async for sample in samples:
                image = await write_image(job, backend, sample.picture, request.output, wanted)
                yield generate_pb2.GenerateResponse(
                    index=sample.index,
                    seed=sample.seed,
                    image=image,
                    latent_token=write_token(sample.w_plus, sha256),
                    models=versions(job),
                )
