"""Edits between the wire and the latents' steps; reference pictures are decoded here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from velatura.server.pipelines.job import Job
from velatura.server.pipelines.latents import (
    DirectionStep,
    Layers,
    OffsetStep,
    ReferenceStep,
    Step,
)
from velatura.server.pipelines.workers import every
from velatura.server.rpc.backend import Backend
from velatura.server.rpc.images import read_image
from velatura.server.rpc.tokens import read_token
from velatura.v1 import edit_pb2
from velatura.v1.bundle_pb2 import GeneratorEntry


async def read_steps(
    job: Job, backend: Backend, edits: Sequence[edit_pb2.Edit], generator: GeneratorEntry
) -> list[Step]:
    """The steps of a request, in order."""
    return await every(
        [
            _step(job, backend, edit, generator, f"edits[{index}]")
            for index, edit in enumerate(edits)
        ]
    )


async def _step(
    job: Job, backend: Backend, edit: edit_pb2.Edit, generator: GeneratorEntry, field: str
) -> Step:
    kind = edit.WhichOneof("kind") or "reference"
    where = f"{field}.{kind}"
    if kind == "direction":
        direction = edit.direction
        layers = read_layers(direction.layers, where) if direction.HasField("layers") else None
        return DirectionStep(direction.name, direction.strength, layers, where)
    if kind == "offset":
        values = np.asarray(edit.offset.values, np.float32)
        return OffsetStep(read_layers(edit.offset.layers, where), values, where)
    return await _reference(job, backend, edit.reference, generator, where)


async def _reference(
    job: Job,
    backend: Backend,
    reference: edit_pb2.ReferenceEdit,
    generator: GeneratorEntry,
    where: str,
) -> ReferenceStep:
    layers = read_layers(reference.layers, where) if reference.HasField("layers") else None
    if reference.WhichOneof("source") == "image":
        picture = await read_image(job, backend, reference.image, f"{where}.image")
        return ReferenceStep(picture, layers, reference.strength, where)
    latents = read_token(
        reference.latent_token,
        generator,
        backend.synthesis_sha256(generator),
        f"{where}.latent_token",
    )
    return ReferenceStep(latents, layers, reference.strength, where)


def read_layers(layers: edit_pb2.LayerRange, where: str) -> Layers:
    """A layer range of the message at path `where`."""
    return Layers(layers.start, layers.end, f"{where}.layers")
