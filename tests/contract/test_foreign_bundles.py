"""Generators and encoders of every format, in bundles that the unchanged server serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from velatura.export.bundle import write_bundle
from velatura.export.checkpoints.native import save_weights
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.export.own_bundle import OwnFiles, load_own, origin_of
from velatura.v1 import bundle_pb2, edit_pb2, edit_pb2_grpc

from ..running import RunningServer, opened, picture, png, samples, start_server
from ..unit.export import ada_snapshots, inversion_files, rosinality_files

# Twelve graphs are traced first, which other work on the machine can stretch.
pytestmark = pytest.mark.timeout(1200)
RESOLUTION, NUM_WS, W_DIM = 8, 4, 8  # tracing takes time for each layer
SHAPE = inversion_files.Shape((16, 32, 48, 64), (1, 1, 1, 1), NUM_WS, W_DIM)


def encoder_file(path: Path, kind: str, channels: int = 3) -> Path:
    return inversion_files.write(
        path,
        inversion_files.build(kind, channels, SHAPE),
        kind,
        latent_avg=inversion_files.average(NUM_WS),
    )


def ada_and_e4e(folder: Path) -> OwnFiles:
    source = ada_snapshots.build(z_dim=W_DIM, w_dim=W_DIM, resolution=RESOLUTION)
    generator = ada_snapshots.write(folder / "network.pkl", G_ema=source)
    return OwnFiles(generator, encoder_file(folder / "e4e.pt", "Encoder4Editing"))


def rosinality_and_psp(folder: Path) -> OwnFiles:
    generator = rosinality_files.write(folder / "stylegan2.pt", rosinality_files.build())
    return OwnFiles(generator, encoder_file(folder / "psp.pt", "GradualStyleEncoder"))


def restyle_with_its_decoder(folder: Path) -> OwnFiles:
    """One file has both, the generator in rosinality's layout."""
    both = encoder_file(folder / "restyle.pt", "BackboneEncoder", 6)
    return OwnFiles(both, both, iterations=2)


def own_and_own(folder: Path) -> OwnFiles:
    torch.manual_seed(0)
    channels = {4: 8, 8: 4}
    config = GeneratorConfig(RESOLUTION, W_DIM, W_DIM, 2, channels=channels)
    shape = EncoderConfig(RESOLUTION, NUM_WS, W_DIM, (4,), (1,), 4)
    save_weights(folder / "own.safetensors", Generator(config), config)
    save_weights(folder / "encoder.safetensors", Encoder(shape), shape)
    return OwnFiles(folder / "own.safetensors", folder / "encoder.safetensors")


PAIRS: dict[str, Callable[[Path], OwnFiles]] = {
    "ada-e4e": ada_and_e4e,
    "rosinality-psp": rosinality_and_psp,
    "rosinality-restyle": restyle_with_its_decoder,
    "own-own": own_and_own,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bundle_pb2.BundleManifest]:
    """All of them in one bundle, for one server; each is described as `velatura-export` does."""
    folder = tmp_path_factory.mktemp("foreign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rosinality_files, "CHANNELS", {4: 6, 8: 5})
        loaded = [load_own(make(folder), name, origin_of("", "")) for name, make in PAIRS.items()]
    manifest = write_bundle(
        folder / "bundle",
        name="foreign",
        specs=[spec for each in loaded for spec in each.specs],
        generators=[(each.generator, each.directions) for each in loaded],
    )
    return folder / "bundle", manifest


@pytest.fixture(scope="module")
def served(
    bundle: tuple[Path, bundle_pb2.BundleManifest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    running = start_server(bundle[0], tmp_path_factory.mktemp("serving"))
    yield running
    running.stop()


def test_every_graph_agrees_with_its_source(
    bundle: tuple[Path, bundle_pb2.BundleManifest],
) -> None:
    _, manifest = bundle
    assert len(manifest.models) == 3 * len(PAIRS)
    for model in manifest.models:
        batches = {v.batch_size for v in model.verifications if v.reference == "torch float32"}
        assert len(batches) == 3, model.name
        if model.name != "own-own-encoder":
            assert {v.reference for v in model.verifications} > {"torch float64"}
    encoders = [model for model in manifest.models if model.role == bundle_pb2.ROLE_ENCODER]
    assert [list(model.inputs[0].shape) for model in encoders] == [[-1, 3, 8, 8]] * len(PAIRS)
    assert "2 passes" in encoders[2].description


@pytest.mark.parametrize("pair", PAIRS)
def test_an_image_is_encoded_and_edited(served: RunningServer, pair: str) -> None:
    editing = edit_pb2_grpc.EditServiceStub(served.channel())
    layers = edit_pb2.LayerRange(start=1, end=NUM_WS)
    edit = edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[0.5]))
    request = edit_pb2.EditImageRequest(image=png(40, 30), edits=[edit], generator=pair)
    answer = editing.EditImage(request)
    assert opened(answer.image).size == (40, 30)
    assert {each.name for each in answer.models} == {f"{pair}-encoder", f"{pair}-synthesis"}
    difference = np.abs(samples(answer.image) - np.asarray(picture(40, 30)).astype(np.int16))
    assert difference[:, 5:35].max() > 0
    assert difference[:, :5].max() == difference[:, 35:].max() == 0  # beyond the central square
    other = editing.EditImage(
        edit_pb2.EditImageRequest(image=png(40, 30, seed=1), edits=[edit], generator=pair)
    )
    assert other.latent_token != answer.latent_token
