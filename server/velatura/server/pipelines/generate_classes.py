"""Generate with a class-conditional network that makes images straight from z and a class."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from velatura.server.pipelines.ahead import SAMPLES_AT_ONCE, batches_ahead
from velatura.server.pipelines.encode import picture_of
from velatura.server.pipelines.generate import Sample, class_weights, latent_of_seed
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.workers import every
from velatura.v1.bundle_pb2 import ModelEntry


@dataclass(frozen=True, slots=True, eq=False)
class ClassOrder:
    """What to sample from `model`, a network of ROLE_CLASS_GENERATOR; `truncation_psi` is 0..2."""

    seeds: Sequence[int]
    truncation_psi: float
    model: ModelEntry
    class_name: str


async def generate_classes(job: Job, order: ClassOrder) -> AsyncGenerator[Sample]:
    """Samples in the order of the seeds, without latents of W+; raises UnknownThing for a class
    that the network does not have."""
    model = order.model
    classes = class_weights(model, order.class_name, model.name)  # [C]
    if classes is None:  # the bundle's checks let no such network pass
        raise AssertionError(f"{model.name} takes no class_weights")
    z_dim = next(spec.shape[1] for spec in model.inputs if spec.name == "z")

    async def batch(start: int) -> list[Sample]:
        seeds = order.seeds[start : start + SAMPLES_AT_ONCE]
        z = np.stack([latent_of_seed(seed, z_dim) for seed in seeds])  # [N, z_dim]
        inputs = {
            "z": z * np.float32(order.truncation_psi),
            "class_weights": np.repeat(classes[None], len(seeds), axis=0),  # [N, C]
        }
        outputs = await job.infer("generator", model.name, inputs)
        images = outputs["image"]  # [N, 3, R, R]
        pictures = await every([job.compute("finish", picture_of, image) for image in images])
        return [Sample(start + i, seed, pictures[i]) for i, seed in enumerate(seeds)]

    async with aclosing(batches_ahead(len(order.seeds), batch)) as samples:
        async for sample in samples:
            yield sample
