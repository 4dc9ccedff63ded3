"""Specifications of a W+ generator's networks: synthesis, mapping, encoder, and a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from velatura.export.double_precision import float64_reference
from velatura.export.errors import CheckpointError
from velatura.export.formats import Provider
from velatura.export.networks.encoder import Encoder
from velatura.export.networks.segmenter import SegmenterConfig
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.export.prepared import prepared, written_for
from velatura.export.specification import Background, NetworkSpec, Port
from velatura.v1 import bundle_pb2

_STYLEGAN2 = "Karras et al. 2020, arXiv:1912.04958"
_ADA = "Karras et al. 2020, arXiv:2006.06676"
_LARGE = 256  # px; beyond, a batch of 8 takes gigabytes
_TOLERANCE = 2e-4  # of deep networks whose outputs have magnitude one
_SEGMENTERS = {
    "deeplabv3plus": ("DeepLabv3+", ("Chen et al. 2018, arXiv:1802.02611",)),
    "unet_scse": (
        "U-Net with scSE attention",
        ("Ronneberger et al. 2015, arXiv:1505.04597", "Roy et al. 2018, arXiv:1803.02579"),
    ),
}


@dataclass(frozen=True)
class Origin:
    """What the cards of a set of networks say alike. `subject` is what the images show."""

    license: str
    source: str
    training_data: str
    limits: str
    subject: str = "image"  # one word that takes "an", its plural in "s"

    def background(self, description: str, use: str, papers: Sequence[str]) -> Background:
        return Background(
            description=description,
            license=self.license,
            source=self.source,
            training_data=self.training_data,
            intended_use=use,
            limits=self.limits,
            papers=tuple(papers),
        )


def synthesis_spec(
    name: str, generator: Generator, origin: Origin, provider: Provider = Provider.CPU
) -> NetworkSpec:
    """W+ → image, traced as `provider` runs it fastest."""
    config = generator.config
    inputs, outputs = (latents(config),), (picture("image", config.resolution),)
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_SYNTHESIS,
        module=generator.synthesis,
        traced=prepared(generator.synthesis, provider),
        written_for=written_for(generator.synthesis, provider),
        inputs=inputs,
        outputs=outputs,
        background=origin.background(
            f"StyleGAN2 synthesis network: W+ latents to an {origin.subject} of "
            f"{config.resolution} × {config.resolution} px.",
            f"Editing and sampling {origin.subject}s.",
            (_STYLEGAN2, _ADA),
        ),
        tolerance=_TOLERANCE,
        batch_sizes=(1, 3, 8) if config.resolution <= _LARGE else (1, 2, 3),
        references=(float64_reference(generator.synthesis, inputs, outputs, _TOLERANCE),),
    )


def mapping_spec(
    name: str, generator: Generator, origin: Origin, class_names: Sequence[str] = ()
) -> NetworkSpec:
    """z, psi and, of a class-conditional network, class weights → w.

    Raises CheckpointError when the names are not one for each class.
    """
    config = generator.config
    if len(class_names) != config.classes or len(set(class_names)) != config.classes:
        raise CheckpointError(
            f"{name}: {len(class_names)} class names ({len(set(class_names))} different) for "
            f"{config.classes} classes; give one name for each class"
        )
    inputs = samples(config)
    kind = f"class-conditional mapping network of {config.classes} classes"
    outputs = (Port("w", (-1, config.w_dim), layout="N, dimension"),)
    reference = float64_reference(generator.mapping, tuple(inputs), outputs, _TOLERANCE)
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_MAPPING,
        module=generator.mapping,
        inputs=tuple(inputs),
        outputs=outputs,
        background=origin.background(
            f"StyleGAN2 {kind if config.classes else 'mapping network'} with truncation: z to the "
            "latent w.",
            f"Sampling {origin.subject}s; psi below 1 trades variety for typical ones.",
            (_STYLEGAN2,),
        ),
        labels=tuple(class_names),
        references=(reference,),
    )


def encoder_spec(name: str, encoder: Encoder, generator: Generator, origin: Origin) -> NetworkSpec:
    """Image → W+ of this generator. Raises CheckpointError for an encoder of another one."""
    require_fitting(encoder, generator)
    if encoder.delta_scale != 1:
        raise CheckpointError(
            f"{name}: delta_scale is {encoder.delta_scale}; only the whole encoder is exported, "
            "set it to 1"
        )
    config = generator.config
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_ENCODER,
        module=encoder,
        inputs=(picture("image", config.resolution),),
        outputs=(latents(config),),
        background=origin.background(
            f"W+ encoder: an {origin.subject} to the latents that generate it.",
            f"Finding the latents of an {origin.subject} that is to be edited.",
            ("Tov et al. 2021, arXiv:2102.02766",),
        ),
    )


def segmenter_spec(
    name: str, network: nn.Module, config: SegmenterConfig, origin: Origin
) -> NetworkSpec:
    """Image → logits of the classes."""
    kind, papers = _SEGMENTERS[config.architecture]
    size = config.resolution
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_SEGMENTER,
        module=network,
        inputs=(picture("image", size),),
        outputs=(Port("logits", (-1, len(config.classes), size, size), layout="NCHW"),),
        background=origin.background(
            f"{kind} on {config.encoder}: one of {len(config.classes)} regions for each pixel of "
            f"an {origin.subject}.",
            "Limiting an edit or a style to named regions.",
            papers,
        ),
        labels=config.classes,
        tolerance=_TOLERANCE,
    )


def generator_entry(
    name: str, generator: Generator, *, synthesis: str, mapping: str, encoder: str = ""
) -> bundle_pb2.GeneratorEntry:
    """How the networks belong together; the bundle's writer fills in the directions."""
    config = generator.config
    return bundle_pb2.GeneratorEntry(
        name=name,
        synthesis=synthesis,
        mapping=mapping,
        encoder=encoder,
        num_ws=config.num_ws,
        w_dim=config.w_dim,
        z_dim=config.z_dim,
        resolution=config.resolution,
        w_avg=generator.mapping.w_avg.tolist(),
    )


def require_fitting(encoder: Encoder, generator: Generator) -> None:
    """Raises CheckpointError when the encoder's size or latents are not the generator's."""
    want, got = generator.config, encoder.config
    if (want.resolution, want.num_ws, want.w_dim) != (got.resolution, got.num_ws, got.w_dim):
        raise CheckpointError(
            f"the encoder was made for {got.resolution} px and W+ of {got.num_ws} × {got.w_dim}, "
            f"the generator has {want.resolution} px and {want.num_ws} × {want.w_dim}"
        )


def picture(name: str, resolution: int) -> Port:
    """[N, 3, R, R] in [-1, 1]."""
    return Port(name, (-1, 3, resolution, resolution), -1, 1, "NCHW")


def samples(config: GeneratorConfig) -> list[Port]:
    """z, truncation_psi and, of a class-conditional network, class_weights."""
    ports = [
        Port("z", (-1, config.z_dim), layout="N, dimension"),
        Port("truncation_psi", (-1,), 0, 1, "N"),
    ]
    if config.classes:
        weights = Port("class_weights", (-1, config.classes), layout="N, class", sums_to_one=True)
        ports.append(weights)
    return ports


def latents(config: GeneratorConfig) -> Port:
    """w_plus [N, num_ws, w_dim]."""
    return Port("w_plus", (-1, config.num_ws, config.w_dim), layout="N, layer, dimension")
