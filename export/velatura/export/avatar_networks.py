"""Specifications of the embedded avatar domain: generator, mapping, encoder and segmenters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from google.protobuf import json_format
from torch import nn

from velatura.export import generator_networks
from velatura.export.checkpoints import native
from velatura.export.checkpoints.class_generator import load_class_generator
from velatura.export.class_networks import class_generator_spec
from velatura.export.errors import CheckpointError
from velatura.export.generator_networks import Origin
from velatura.export.networks.biggan import ClassGenerator
from velatura.export.networks.encoder import Encoder
from velatura.export.networks.segmenter import SegmenterConfig
from velatura.export.networks.stylegan2 import Generator
from velatura.export.pictures import sampled, sampled_classes
from velatura.export.specification import NetworkSpec, TrainingRun
from velatura.v1 import bundle_pb2

SYNTHESIS, MAPPING, ENCODER, SEGMENTER, UNET = (
    "avatar-synthesis",
    "avatar-mapping",
    "avatar-encoder",
    "avatar-segmenter",
    "avatar-segmenter-unet",
)
CLASS_GENERATOR = "avatar-expressions"
CLASS_GENERATOR_FILE = "avatar-biggan.safetensors"
# Logits of networks whose weights are stored in float16 after batch norm was folded into them.
_ROUNDED_TOLERANCE = 5e-3
_ORIGIN = Origin(
    license="Apache-2.0",
    source="Trained from scratch by velatura-training.",
    training_data="Procedurally rendered avatars: avataaars by Pablo Stanley as drawn by "
    "python-avatars (MIT), random parts and colours on backgrounds of our own; no photographs and "
    "no real persons.",
    limits="Knows flat cartoon avatars only. Photographs of people are outside its domain: results "
    "on them mean nothing.",
    subject="avatar",
)


@dataclass(frozen=True)
class AvatarWeights:
    """The trained networks of the avatar domain."""

    generator: Generator
    encoder: Encoder
    segmenters: Mapping[str, tuple[nn.Module, SegmenterConfig]]
    directions: bundle_pb2.DirectionSet
    figures: Mapping[str, Sequence[bundle_pb2.Figure]]
    class_generator: ClassGenerator | None = None
    training: Mapping[str, Sequence[TrainingRun]] = field(default_factory=dict)


def load_avatar_weights(folder: Path) -> AvatarWeights:
    """Read `avatar-{generator,encoder,segmenter}` and `avatar-directions.json`, and
    `avatar-segmenter-unet` and `avatar-biggan` where they are.

    Raises CheckpointError when a file is missing or the networks do not belong together.
    """
    generator = native.load_generator(folder / "avatar-generator.safetensors")
    encoder = native.load_encoder(folder / "avatar-encoder.safetensors")
    paths = {name: folder / f"{name}.safetensors" for name in (SEGMENTER, UNET)}
    segmenters = {
        name: native.load_segmenter(path)
        for name, path in paths.items()
        if name == SEGMENTER or path.exists()
    }
    try:
        generator_networks.require_fitting(encoder, generator)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    config = generator.config
    path = folder / "avatar-directions.json"
    directions = native.load_directions(path, config.num_ws, config.w_dim)
    classes = folder / CLASS_GENERATOR_FILE
    return AvatarWeights(
        generator,
        encoder,
        segmenters,
        directions,
        load_figures(folder),
        load_class_generator(classes) if classes.exists() else None,
        load_training(folder),
    )


def load_figures(folder: Path) -> dict[str, list[bundle_pb2.Figure]]:
    """`figures.json`, if there is one: an object of network name → list of figures (protobuf JSON).

    Raises CheckpointError when it has another form.
    """
    path = folder / "figures.json"
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text())
        return {
            name: [json_format.ParseDict(f, bundle_pb2.Figure()) for f in figures]
            for name, figures in values.items()
        }
    except (json.JSONDecodeError, json_format.ParseError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f'{path}: expected {{"network": [{{"name": …, "value": …}}]}}: {error}'
        ) from error


def load_training(folder: Path) -> dict[str, tuple[TrainingRun, ...]]:
    """`runs.json`, if there is one: an object of network name → the runs that made it.

    Raises CheckpointError when it has another form.
    """
    path = folder / "runs.json"
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text())
        return {name: tuple(TrainingRun(**run) for run in runs) for name, runs in values.items()}
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f'{path}: expected {{"network": [{{"command": …, "steps": …, "minutes": …}}]}}: {error}'
        ) from error


def avatar_specs(weights: AvatarWeights) -> list[NetworkSpec]:
    """The networks in the bundle's order."""
    generator = weights.generator
    specs = [
        replace(
            generator_networks.synthesis_spec(SYNTHESIS, generator, _ORIGIN),
            pictures=partial(sampled, generator),
        ),
        generator_networks.mapping_spec(MAPPING, generator, _ORIGIN),
        replace(
            generator_networks.encoder_spec(ENCODER, weights.encoder, generator, _ORIGIN),
            half_weights=True,
        ),
    ]
    rounded = [
        generator_networks.segmenter_spec(name, network, config, _ORIGIN)
        for name, (network, config) in weights.segmenters.items()
    ]
    if weights.class_generator is not None:
        sampler = weights.class_generator
        spec = class_generator_spec(CLASS_GENERATOR, sampler, _ORIGIN, "expression")
        rounded.append(replace(spec, pictures=partial(sampled_classes, sampler)))
    specs += [replace(s, half_weights=True, tolerance=_ROUNDED_TOLERANCE) for s in rounded]
    unknown = sorted(set(weights.figures) - {spec.name for spec in specs})
    if unknown:
        raise CheckpointError(f"figures.json: no network is named {', '.join(unknown)}")
    return [
        replace(
            spec,
            figures=tuple(weights.figures.get(spec.name, ())),
            training=tuple(weights.training.get(spec.name, ())),
        )
        for spec in specs
    ]


def generator_entry(generator: Generator) -> bundle_pb2.GeneratorEntry:
    """How the avatar networks belong together; the bundle's writer fills in the directions."""
    return generator_networks.generator_entry(
        "avatar", generator, synthesis=SYNTHESIS, mapping=MAPPING, encoder=ENCODER
    )
