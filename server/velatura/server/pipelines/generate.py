"""Generate: sample a generator by seeds, a batch at a time, each sample handed out as soon as it is
done."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from velatura.server.imaging.picture import F32, Picture
from velatura.server.pipelines.ahead import SAMPLES_AT_ONCE, batches_ahead
from velatura.server.pipelines.encode import picture_of, synthesise
from velatura.server.pipelines.errors import InvalidRequest, UnknownThing, Unsupported
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.latents import Layers, Move, Step, apply, check_steps, moves_of
from velatura.server.pipelines.workers import every
from velatura.v1.bundle_pb2 import DirectionEntry, GeneratorEntry, ModelEntry, Role


@dataclass(frozen=True, slots=True)
class Mixing:
    """Layers that come from the latent of a second seed."""

    seed: int
    layers: Layers


@dataclass(frozen=True, slots=True, eq=False)
class SampleOrder:
    """What to sample. `truncation_psi` is 0..2; `class_name` is empty for one without classes."""

    seeds: Sequence[int]
    truncation_psi: float
    generator: GeneratorEntry
    steps: Sequence[Step]
    directions: Mapping[str, DirectionEntry]
    mixing: Mixing | None = None
    class_name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image with its seed; latents float32 [num_ws, w_dim], None where there is no W+."""

    index: int
    seed: int
    picture: Picture
    w_plus: F32 | None = None


async def generate(job: Job, order: SampleOrder) -> AsyncGenerator[Sample]:
    """Samples in the order of the seeds; later batches are already running while earlier ones are
    taken."""
    classes = _check(job, order)
    check_steps(order.steps, order.generator, order.directions)
    moves = await moves_of(job, order.steps, order.generator, order.directions)
    taken = batches_ahead(len(order.seeds), lambda start: _batch(job, order, moves, classes, start))
    async with aclosing(taken) as samples:
        async for sample in samples:
            yield sample


def _check(job: Job, order: SampleOrder) -> F32 | None:
    """Refuse what the generator cannot do; the class weights [C] of a conditional one."""
    generator = order.generator
    if not generator.mapping:
        raise Unsupported(
            "generator",
            f"the generator {generator.name!r} has no mapping network to sample from.",
            "Choose another generator; ListModels shows them.",
        )
    if order.mixing is not None:
        layers = order.mixing.layers
        if layers.start >= layers.end or layers.end > generator.num_ws:
            raise InvalidRequest.of(
                layers.field,
                f"{layers.start}..{layers.end} is no range of the generator's "
                f"{generator.num_ws} layers. Use 0 ≤ start < end ≤ {generator.num_ws}.",
            )
    bundle = job.engine.bundle
    conditional = [entry.name for entry in bundle.models_of(Role.ROLE_CLASS_GENERATOR)]
    mapping = bundle.model(generator.mapping)
    return class_weights(mapping, order.class_name, generator.name, conditional)


def class_weights(
    network: ModelEntry, class_name: str, generator: str, conditional: Sequence[str] = ()
) -> F32 | None:
    """One-hot float32 [C] for a class-conditional network, None for another.

    `conditional` are the generators to choose from where this one has no classes.
    """
    if not any(spec.name == "class_weights" for spec in network.inputs):
        if class_name:
            others = f": {', '.join(conditional)}" if conditional else " (see ListModels)"
            raise Unsupported(
                "class_name",
                f"the generator {generator!r} has no classes.",
                f"Leave class_name out, or choose a class-conditional generator{others}.",
            )
        return None
    if class_name not in network.labels:
        raise UnknownThing("class", class_name, list(network.labels), "class_name")
    weights = np.zeros(len(network.labels), np.float32)
    weights[list(network.labels).index(class_name)] = 1
    return weights


async def _batch(
    job: Job, order: SampleOrder, moves: Sequence[Move], classes: F32 | None, start: int
) -> list[Sample]:
    seeds = order.seeds[start : start + SAMPLES_AT_ONCE]
    w_plus = await _map(job, order, seeds, classes)  # [N, num_ws, w_dim]
    if order.mixing is not None:
        second = await _map(job, order, [order.mixing.seed], classes)  # [1, num_ws, w_dim]
        rows = slice(order.mixing.layers.start, order.mixing.layers.end)
        w_plus[:, rows] = second[:, rows]
    w_plus = apply(moves, w_plus)
    images = await synthesise(job, w_plus, order.generator)  # [N, 3, R, R]
    pictures = await every([job.compute("finish", picture_of, image) for image in images])
    return [
        Sample(start + place, seed, pictures[place], w_plus[place])
        for place, seed in enumerate(seeds)
    ]


async def _map(job: Job, order: SampleOrder, seeds: Sequence[int], classes: F32 | None) -> F32:
    """Latents float32 [N, num_ws, w_dim] of the seeds: one w for all layers."""
    generator, count = order.generator, len(seeds)
    inputs = {
        "z": np.stack([latent_of_seed(seed, generator.z_dim) for seed in seeds]),  # [N, z_dim]
        "truncation_psi": np.full(count, order.truncation_psi, np.float32),  # [N]
    }
    if classes is not None:
        inputs["class_weights"] = np.repeat(classes[None], count, axis=0)  # [N, C]
    outputs = await job.infer("mapping", generator.mapping, inputs)
    return np.repeat(outputs["w"][:, None, :], generator.num_ws, axis=1)


def latent_of_seed(seed: int, z_dim: int) -> F32:
    """Standard normal z float32 [z_dim] of a seed 0..2**64-1; depends on nothing but the seed."""
    source = np.random.Generator(np.random.Philox(key=seed))
    return source.standard_normal(z_dim).astype(np.float32)
