"""Style networks that somebody brings, from files to Stylize on a server that is as it was."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from velatura.export.cli import app
from velatura.v1 import catalog_pb2, catalog_pb2_grpc, stylize_pb2, stylize_pb2_grpc

from ..running import RunningServer, opened, picture, png, samples, start_server
from ..unit.export import adain_files, onnx_files

MANIFEST = onnx_files.NHWC_MANIFEST
Stub = stylize_pb2_grpc.StyleServiceStub


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A Keras style network through tf2onnx, a pair of ONNX files for style pictures, and AdaIN."""
    folder = tmp_path_factory.mktemp("styles")
    networks = [
        onnx_files.write(folder, onnx_files.nhwc_style(), MANIFEST),
        onnx_files.write(folder, onnx_files.tint_predictor(), pair("predictor"), "predictor"),
        onnx_files.write(folder, onnx_files.tint_transformer(), pair("transformer"), "transformer"),
    ]
    encoder, decoder = adain_files.write(folder)
    command = ["bundle", "--name", "adain", "--out", folder / "bundle"]
    command += ["--style-encoder", encoder, "--style-decoder", decoder]
    command += [option for path in networks for option in ("--network", path)]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0, done.output
    running = start_server(folder / "bundle", folder)
    yield running
    running.stop()


def pair(part: str) -> str:
    return f"""\
name = "tint-{part}"
role = "style_{part}"
file = "{part}.onnx"
license = "MIT"
"""


@pytest.fixture(scope="module")
def channel(served: RunningServer) -> grpc.Channel:
    return served.channel()


def test_the_manifest_is_short() -> None:
    assert len(MANIFEST.splitlines()) < 20


def test_the_catalog_lists_the_style(channel: grpc.Channel) -> None:
    catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
    styles = catalog.ListStyles(catalog_pb2.ListStylesRequest()).styles
    assert [style.name for style in styles] == ["mosaic"]


@pytest.mark.parametrize("size", [(64, 48), (37, 21), (1, 1)])
def test_it_paints_what_the_file_computes(channel: grpc.Channel, size: tuple[int, int]) -> None:
    styles = [stylize_pb2.StyleSource(preset="mosaic")]
    answer = Stub(channel).Stylize(stylize_pb2.StylizeRequest(content=png(*size), styles=styles))
    assert opened(answer.image).size == size
    assert [model.name for model in answer.models] == ["mosaic"]
    sent = np.asarray(picture(*size)).transpose(2, 0, 1)[None] / 255
    # The server pads by mirroring; away from the border that changes nothing.
    expected = onnx_files.styled(sent)[0].transpose(1, 2, 0)[:-1, :-1] * 255
    assert np.abs(samples(answer.image)[:-1, :-1] - expected).max(initial=0) < 1


def painted(channel: grpc.Channel, seed: int, strength: float, model: str = "") -> np.ndarray:  # type: ignore[type-arg]
    style = stylize_pb2.StyleSource(image=png(90, 70, seed))
    request = stylize_pb2.StylizeRequest(content=png(50, 44), styles=[style], model=model)
    request.strength = strength
    answer = Stub(channel).Stylize(request)
    kind = model.partition("-")[0] or "adain"
    assert all(used.name.startswith(kind) for used in answer.models)
    assert len(answer.models) == (2 if strength else 0)
    return samples(answer.image)


def test_adain_takes_style_pictures(channel: grpc.Channel) -> None:
    full = painted(channel, 3, 1)
    assert full.shape == (44, 50, 3)
    assert np.abs(full - painted(channel, 4, 1)).max() > 2
    assert np.abs(full - painted(channel, 3, 0.5)).max() > 2
    assert np.array_equal(painted(channel, 3, 0), np.asarray(picture(50, 44)))


def test_a_transformer_gets_its_own_predictor(channel: grpc.Channel) -> None:
    """The bundle's first predictor belongs to AdaIN and its code is longer."""
    made = painted(channel, 3, 1, model="tint-transformer")
    colour = np.asarray(picture(90, 70, 3))[:, 10:80].mean((0, 1)) / 255  # the central square
    expected = np.asarray(picture(50, 44)) * colour
    assert np.abs(made - expected).max() < 2
