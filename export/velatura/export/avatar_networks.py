"""Specifications of the embedded avatar domain: generator, mapping, encoder and segmenter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf import json_format
from torch import nn

from velatura.export.checkpoints import native
from velatura.export.errors import CheckpointError
from velatura.export.networks.encoder import Encoder
from velatura.export.networks.segmenter import SegmenterConfig
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.export.specification import Background, NetworkSpec, Port
from velatura.v1 import bundle_pb2

SYNTHESIS, MAPPING, ENCODER, SEGMENTER = (
    "avatar-synthesis",
    "avatar-mapping",
    "avatar-encoder",
    "avatar-segmenter",
)
_DATA = (
    "Procedurally rendered avatars: avataaars by Pablo Stanley as drawn by python-avatars (MIT), "
    "random parts and colours on backgrounds of our own; no photographs and no real persons."
)
_LICENSE = "Apache-2.0"
_SOURCE = "Trained from scratch by velatura-training."
_LIMITS = (
    "Knows flat cartoon avatars only. Photographs of people are outside its domain: results on "
    "them mean nothing."
)


@dataclass(frozen=True)
class AvatarWeights:
    """The trained networks of the avatar domain."""

    generator: Generator
    encoder: Encoder
    segmenter: nn.Module
    segmenter_config: SegmenterConfig
    directions: bundle_pb2.DirectionSet
    figures: Mapping[str, Sequence[bundle_pb2.Figure]]


def load_avatar_weights(folder: Path) -> AvatarWeights:
    """Read `avatar-{generator,encoder,segmenter}` and `avatar-directions.json`.

    Raises CheckpointError when a file is missing or the networks do not belong together.
    """
    generator = native.load_generator(folder / "avatar-generator.safetensors")
    encoder = native.load_encoder(folder / "avatar-encoder.safetensors")
    segmenter, segmenter_config = native.load_segmenter(folder / "avatar-segmenter.safetensors")
    want, got = generator.config, encoder.config
    if (want.resolution, want.num_ws, want.w_dim) != (got.resolution, got.num_ws, got.w_dim):
        raise CheckpointError(
            f"{folder}: the encoder was made for {got.resolution} px and W+ of {got.num_ws} × "
            f"{got.w_dim}, the generator has {want.resolution} px and {want.num_ws} × {want.w_dim}"
        )
    directions = native.load_directions(folder / "avatar-directions.json", want.num_ws, want.w_dim)
    return AvatarWeights(
        generator, encoder, segmenter, segmenter_config, directions, load_figures(folder)
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


def avatar_specs(weights: AvatarWeights) -> list[NetworkSpec]:
    """The four networks in the bundle's order."""
    config = weights.generator.config
    specs = [
        _synthesis(weights.generator, config),
        _mapping(weights.generator, config),
        _encoder(weights.encoder, config),
        _segmenter(weights.segmenter, weights.segmenter_config),
    ]
    unknown = sorted(set(weights.figures) - {spec.name for spec in specs})
    if unknown:
        raise CheckpointError(f"figures.json: no network is named {', '.join(unknown)}")
    return [replace(spec, figures=tuple(weights.figures.get(spec.name, ()))) for spec in specs]


def generator_entry(generator: Generator) -> bundle_pb2.GeneratorEntry:
    """How the avatar networks belong together; the bundle's writer fills in the directions."""
    config = generator.config
    return bundle_pb2.GeneratorEntry(
        name="avatar",
        synthesis=SYNTHESIS,
        mapping=MAPPING,
        encoder=ENCODER,
        num_ws=config.num_ws,
        w_dim=config.w_dim,
        z_dim=config.z_dim,
        resolution=config.resolution,
        w_avg=generator.mapping.w_avg.tolist(),
    )


def _picture(name: str, resolution: int) -> Port:
    return Port(name, (-1, 3, resolution, resolution), -1, 1, "NCHW")


def _latents(config: GeneratorConfig) -> Port:
    return Port("w_plus", (-1, config.num_ws, config.w_dim), layout="N, layer, dimension")


def _synthesis(generator: Generator, config: GeneratorConfig) -> NetworkSpec:
    return NetworkSpec(
        name=SYNTHESIS,
        role=bundle_pb2.ROLE_SYNTHESIS,
        module=generator.synthesis,
        inputs=(_latents(config),),
        outputs=(_picture("image", config.resolution),),
        background=Background(
            description=f"StyleGAN2 synthesis network: W+ latents to an avatar of "
            f"{config.resolution} × {config.resolution} px.",
            license=_LICENSE,
            source=_SOURCE,
            training_data=_DATA,
            intended_use="Editing and sampling avatar faces: a small, complete example domain.",
            limits=_LIMITS,
            papers=("Karras et al. 2020, arXiv:1912.04958", "Karras et al. 2020, arXiv:2006.06676"),
        ),
        tolerance=2e-4,
    )


def _mapping(generator: Generator, config: GeneratorConfig) -> NetworkSpec:
    return NetworkSpec(
        name=MAPPING,
        role=bundle_pb2.ROLE_MAPPING,
        module=generator.mapping,
        inputs=(
            Port("z", (-1, config.z_dim), layout="N, dimension"),
            Port("truncation_psi", (-1,), 0, 1, "N"),
        ),
        outputs=(Port("w", (-1, config.w_dim), layout="N, dimension"),),
        background=Background(
            description="StyleGAN2 mapping network with truncation: z to the latent w.",
            license=_LICENSE,
            source=_SOURCE,
            training_data=_DATA,
            intended_use="Sampling avatars; psi below 1 trades variety for typical faces.",
            limits=_LIMITS,
            papers=("Karras et al. 2020, arXiv:1912.04958",),
        ),
    )


def _encoder(encoder: Encoder, config: GeneratorConfig) -> NetworkSpec:
    if encoder.delta_scale != 1:
        raise CheckpointError(
            f"{ENCODER}: delta_scale is {encoder.delta_scale}; only the whole encoder is exported, "
            "set it to 1"
        )
    return NetworkSpec(
        name=ENCODER,
        role=bundle_pb2.ROLE_ENCODER,
        module=encoder,
        inputs=(_picture("image", config.resolution),),
        outputs=(_latents(config),),
        background=Background(
            description="W+ encoder: an avatar to the latents that generate it.",
            license=_LICENSE,
            source=_SOURCE,
            training_data=_DATA,
            intended_use="Finding the latents of an avatar that is to be edited.",
            limits=_LIMITS,
            papers=("Tov et al. 2021, arXiv:2102.02766",),
        ),
    )


def _segmenter(network: nn.Module, config: SegmenterConfig) -> NetworkSpec:
    kind = {"deeplabv3plus": "DeepLabv3+", "unet_scse": "U-Net with scSE attention"}
    size = config.resolution
    return NetworkSpec(
        name=SEGMENTER,
        role=bundle_pb2.ROLE_SEGMENTER,
        module=network,
        inputs=(_picture("image", size),),
        outputs=(Port("logits", (-1, len(config.classes), size, size), layout="NCHW"),),
        background=Background(
            description=f"{kind[config.architecture]} on {config.encoder}: one of "
            f"{len(config.classes)} regions for each pixel of an avatar.",
            license=_LICENSE,
            source=_SOURCE,
            training_data=_DATA,
            intended_use="Limiting an edit or a style to named regions.",
            limits=_LIMITS,
            papers=("Chen et al. 2018, arXiv:1802.02611",)
            if config.architecture == "deeplabv3plus"
            else ("Ronneberger et al. 2015, arXiv:1505.04597", "Roy et al. 2018, arXiv:1803.02579"),
        ),
        labels=config.classes,
        tolerance=2e-4,
    )
