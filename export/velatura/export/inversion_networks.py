"""Specification of a published encoder (pSp, e4e, ReStyle) for the bundle's encoder role."""

from __future__ import annotations

from torch import nn

from velatura.export.checkpoints.inversion import LoadedEncoder
from velatura.export.double_precision import float64_reference
from velatura.export.errors import CheckpointError
from velatura.export.formats import Provider
from velatura.export.generator_networks import Origin, latents, picture
from velatura.export.networks.inversion import DirectInversion, IterativeInversion
from velatura.export.networks.stylegan2 import Generator
from velatura.export.prepared import prepared, written_for
from velatura.export.specification import NetworkSpec
from velatura.v1 import bundle_pb2

ITERATIONS = 5  # as published for ReStyle
MAX_ITERATIONS = 20
_TOLERANCE = 5e-4  # fifty layers deep
_PSP = "Richardson et al. 2021, arXiv:2008.00951"
_E4E = "Tov et al. 2021, arXiv:2102.02766"
_RESTYLE = "Alaluf et al. 2021, arXiv:2104.02699"


def inversion_module(
    encoder: LoadedEncoder,
    generator: Generator,
    iterations: int = ITERATIONS,
    synthesis: nn.Module | None = None,
) -> nn.Module:
    """Image [N, 3, R, R] → w_plus, at this generator's size; `synthesis` runs in place of its own.

    Raises CheckpointError for an encoder of another W+, or iterations that are not 1 to 20.
    """
    want, got = generator.config, encoder.network.config
    if (want.num_ws, want.w_dim) != (got.num_ws, got.w_dim):
        raise CheckpointError(
            f"the encoder was made for W+ of {got.num_ws} × {got.w_dim}, the generator has "
            f"{want.num_ws} × {want.w_dim}; give the generator that it was trained with"
        )
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise CheckpointError(
            f"--iterations {iterations}: give 1 to {MAX_ITERATIONS}; {ITERATIONS} is usual"
        )
    if not encoder.iterative:
        module: nn.Module = DirectInversion(
            encoder.network, encoder.average, want.resolution, letterboxed=encoder.letterboxed
        )
    else:
        module = IterativeInversion(
            encoder.network,
            encoder.average,
            synthesis or generator.synthesis,
            want.resolution,
            letterboxed=encoder.letterboxed,
            iterations=iterations,
        )
    return module.eval()


def inversion_spec(
    name: str,
    encoder: LoadedEncoder,
    generator: Generator,
    origin: Origin,
    iterations: int = ITERATIONS,
    provider: Provider = Provider.CPU,
) -> NetworkSpec:
    """Image → W+ of this generator; ReStyle's passes and its generator are inside the graph."""
    module = inversion_module(encoder, generator, iterations)
    traced, suits = None, ""
    if encoder.iterative:
        quick = prepared(generator.synthesis, provider)
        traced = inversion_module(encoder, generator, iterations, quick)
        suits = written_for(generator.synthesis, provider)
    config = generator.config
    inputs, outputs = (picture("image", config.resolution),), (latents(config),)
    passes = f", {iterations} passes with the generator between" if encoder.iterative else ""
    tolerance = _TOLERANCE * (iterations if encoder.iterative else 1)
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_ENCODER,
        module=module,
        traced=traced,
        written_for=suits,
        inputs=inputs,
        outputs=outputs,
        background=origin.background(
            f"W+ encoder ({encoder.encoder_type}{passes}): an {origin.subject} to the latents that "
            "generate it.",
            f"Finding the latents of an {origin.subject} that is to be edited.",
            (_RESTYLE, _PSP) if encoder.iterative else (_E4E, _PSP),
        ),
        tolerance=tolerance,
        # A batch of eight at 256 px takes gigabytes in the first stages.
        batch_sizes=(1, 2, 3),
        references=(float64_reference(module, inputs, outputs, tolerance),),
    )
