"""One plain ONNX file of a generator for programs other than velatura-server, with its report.

It is traced, optimised and compared with torch as a bundle's networks are.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format
from torch import nn

from velatura.export.bundle import export_network
from velatura.export.convert import open_generator
from velatura.export.double_precision import float64_reference
from velatura.export.errors import ExportError
from velatura.export.formats import Fusion, Noise, Provider
from velatura.export.generator_networks import Origin, latents, picture, samples
from velatura.export.inversion_networks import ITERATIONS
from velatura.export.networks.fused import Reconstruction, Renderer, SampleRenderer, noise_size
from velatura.export.networks.stylegan2 import Generator, SynthesisNetwork
from velatura.export.own_bundle import bundle_name, describe_encoder, origin_of
from velatura.export.prepared import prepared, written_for
from velatura.export.specification import NetworkSpec, Port
from velatura.v1 import bundle_pb2

_TOLERANCE = 5e-4
# A value that lies between two levels may be rounded either way.
_PIXEL_TOLERANCE = 2 / 255
_PAPER = "Karras et al. 2020, arXiv:1912.04958"


@dataclass(frozen=True)
class GraphOptions:
    """What the file is to compute. `iterations` are the passes of a ReStyle encoder."""

    fuse: Fusion = Fusion.NONE
    encoder: Path | None = None
    noise: Noise = Noise.CONSTANT
    pixels: bool = False
    iterations: int = ITERATIONS
    provider: Provider = Provider.CPU


def write_graph(path: Path, out: Path, options: GraphOptions) -> bundle_pb2.ModelEntry:
    """Write `out` (`.onnx`), its report `.json` (a ModelEntry) and its card `.md`.

    Raises ExportError, and writes nothing, when the options contradict each other, a file does not
    fit or the graph fails its checks.
    """
    if out.suffix != ".onnx":
        raise ExportError(f"{out}: the output's name must end in .onnx")
    if (options.encoder is not None) != (options.fuse is Fusion.ENCODER):
        raise ExportError(f"--encoder FILE goes with --fuse {Fusion.ENCODER}, and only with it")
    generator = open_generator(path)
    spec = graph_spec(bundle_name("", out), generator, options, origin_of("", ""))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as scratch:
        folder = Path(scratch)
        (folder / "cards").mkdir()
        entry = export_network(spec, folder)
        written, card = folder / entry.file, folder / entry.card
        entry.file, entry.card = out.name, out.with_suffix(".md").name
        report = folder / "report.json"
        report.write_text(json_format.MessageToJson(entry, preserving_proto_field_name=True) + "\n")
        for source, target in (
            (report, out.with_suffix(".json")),
            (card, out.with_suffix(".md")),
            (written, out),
        ):
            source.replace(target)
    return entry


def graph_spec(
    name: str, generator: Generator, options: GraphOptions, origin: Origin
) -> NetworkSpec:
    """The network that the options describe. Raises CheckpointError for an encoder of another
    generator."""
    config = generator.config
    noisy = options.noise is Noise.INPUT
    encoder: nn.Module | None = None
    quick_encoder: nn.Module | None = None
    inputs: list[Port] = [latents(config)]
    what = "W+ latents to an image"
    if options.fuse is Fusion.ENCODER and options.encoder is not None:
        described = describe_encoder(
            options.encoder, name, generator, origin, options.iterations, options.provider
        )
        encoder, quick_encoder = described.module, described.traced or described.module
        inputs = [(_pixels if options.pixels else picture)("image", config.resolution)]
        what = "an image to what the generator makes of its latents"
    elif options.fuse is Fusion.MAPPING:
        inputs = samples(config)
        what = "a random vector to an image"
    if noisy:
        inputs.append(Port("noise", (-1, noise_size(generator.synthesis)), layout="N, number"))
    # An encoder's graph has its image already.
    made = "reconstruction" if options.fuse is Fusion.ENCODER else "image"
    output = (_pixels if options.pixels else picture)(made, config.resolution)
    tolerance = _PIXEL_TOLERANCE if options.pixels else _TOLERANCE
    module = _network(generator, options, encoder, generator.synthesis)
    # Where noise comes in, it cannot be computed beforehand.
    quick = generator.synthesis if noisy else prepared(generator.synthesis, options.provider)
    traced = _network(generator, options, quick_encoder, quick)
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_UNSPECIFIED,
        module=module,
        traced=traced,
        written_for="" if noisy else written_for(generator.synthesis, options.provider),
        inputs=tuple(inputs),
        outputs=(output,),
        background=origin.background(
            f"StyleGAN2 of {config.resolution} × {config.resolution} px as one graph: {what}.",
            "Running the generator in a program of one's own.",
            (_PAPER,),
        ),
        tolerance=tolerance,
        batch_sizes=(1, 2, 3),
        references=(float64_reference(module, tuple(inputs), (output,), tolerance),),
    )


def _network(
    generator: Generator,
    options: GraphOptions,
    encoder: nn.Module | None,
    synthesis: SynthesisNetwork,
) -> nn.Module:
    noisy = options.noise is Noise.INPUT
    renderer = Renderer(synthesis, noisy=noisy, pixels=options.pixels)
    if encoder is not None:
        return Reconstruction(encoder, renderer).eval()
    if options.fuse is Fusion.MAPPING:
        return SampleRenderer(generator, renderer).eval()
    return renderer.eval()


def _pixels(name: str, resolution: int) -> Port:
    """uint8 [N, R, R, 3]."""
    return Port(name, (-1, resolution, resolution, 3), 0, 255, "NHWC", dtype="uint8")
