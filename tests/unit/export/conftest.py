"""A tiny generator domain that exports in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from velatura.export.bundle import write_bundle
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.export.specification import Background, NetworkSpec, Port
from velatura.v1 import bundle_pb2

CONFIG = GeneratorConfig(resolution=8, z_dim=8, w_dim=8, mapping_layers=2, channels={4: 8, 8: 4})
ABOUT = Background("A test network.", "Apache-2.0", "Random weights.", "None.")


def random_generator(seed: int = 0) -> Generator:
    """Random weights in every parameter, so that no term of the network is zero by accident."""
    torch.manual_seed(seed)
    generator = Generator(CONFIG)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
        generator.mapping.w_avg.normal_()
    return generator.eval()


def synthesis_spec(generator: Generator) -> NetworkSpec:
    return NetworkSpec(
        name="tiny-synthesis",
        role=bundle_pb2.ROLE_SYNTHESIS,
        module=generator.synthesis,
        inputs=(Port("w_plus", (-1, CONFIG.num_ws, CONFIG.w_dim)),),
        outputs=(Port("image", (-1, 3, 8, 8), -1, 1, "NCHW"),),
        background=ABOUT,
        figures=(bundle_pb2.Figure(name="PSNR", value=21.5, unit="dB", measured_on="nothing"),),
    )


def linear_spec(name: str = "linear") -> NetworkSpec:
    """The quickest network to export."""
    torch.manual_seed(2)
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_UNSPECIFIED,
        module=torch.nn.Linear(4, 3).eval(),
        inputs=(Port("x", (-1, 4)),),
        outputs=(Port("y", (-1, 3)),),
        background=ABOUT,
    )


def encoder_spec() -> NetworkSpec:
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig(8, CONFIG.num_ws, CONFIG.w_dim, (4,), (1,), 4))
    torch.nn.init.normal_(encoder.deltas.weight)
    return NetworkSpec(
        name="tiny-encoder",
        role=bundle_pb2.ROLE_ENCODER,
        module=encoder.eval(),
        inputs=(Port("image", (-1, 3, 8, 8), -1, 1, "NCHW"),),
        outputs=(Port("w_plus", (-1, CONFIG.num_ws, CONFIG.w_dim)),),
        background=ABOUT,
    )


def directions() -> bundle_pb2.DirectionSet:
    offsets = torch.zeros(CONFIG.num_ws, CONFIG.w_dim)
    offsets[1:3] = 0.5
    entry = bundle_pb2.DirectionEntry(
        name="smile", space="W+", layer_start=1, layer_end=3, offsets=offsets.flatten().tolist()
    )
    return bundle_pb2.DirectionSet(directions=[entry])


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: copy it before changing anything."""
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    entry = bundle_pb2.GeneratorEntry(
        name="tiny",
        synthesis="tiny-synthesis",
        encoder="tiny-encoder",
        num_ws=CONFIG.num_ws,
        w_dim=CONFIG.w_dim,
        z_dim=CONFIG.z_dim,
        resolution=CONFIG.resolution,
    )
    write_bundle(
        out,
        name="tiny",
        specs=[synthesis_spec(random_generator()), encoder_spec()],
        generators=[(entry, directions())],
    )
    return out


@pytest.fixture
def tiny_generator() -> Generator:
    return random_generator()


@pytest.fixture
def tiny_synthesis(tiny_generator: Generator) -> NetworkSpec:
    return synthesis_spec(tiny_generator)


@pytest.fixture
def linear() -> NetworkSpec:
    return linear_spec()
