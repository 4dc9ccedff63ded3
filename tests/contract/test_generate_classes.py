"""Generate from a class-conditional network, through a real server, the client and its CLI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from velatura.client import Client
from velatura.client.cli.app import app
from velatura.v1 import edit_pb2, generate_pb2, generate_pb2_grpc

from ..running import RunningServer, samples, start_server
from .class_bundle import CLASSES, NAME, SIZE, write_class_bundle
from .failures import failing

Stub = generate_pb2_grpc.GenerateServiceStub
Code = grpc.StatusCode
RED = {"circle": 0, "square": 128, "star": 255}


@pytest.fixture(scope="module")
def class_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    bundle = write_class_bundle(tmp_path_factory.mktemp("classes"))
    running = start_server(bundle, tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def shapes(class_server: RunningServer) -> Iterator[Stub]:
    with class_server.channel() as channel:
        yield Stub(channel)


def generated(stub: Stub, **fields: object) -> list[generate_pb2.GenerateResponse]:
    return list(stub.Generate(generate_pb2.GenerateRequest(**fields)))  # type: ignore[arg-type]


def green(answer: generate_pb2.GenerateResponse) -> float:
    """What the samples say of mean(z) · psi."""
    return float(samples(answer.image)[0, 0, 1]) / 127.5 - 1


@pytest.mark.parametrize("name", CLASSES)
def test_every_sample_is_of_the_class_asked_for(shapes: Stub, name: str) -> None:
    answers = generated(shapes, seeds=range(19), class_name=name, generator=NAME)
    assert [each.seed for each in answers] == list(range(19))
    for each in answers:
        pixels = samples(each.image)
        assert pixels.shape == (SIZE, SIZE, 3)
        assert np.abs(pixels[..., 0] - RED[name]).max() <= 1
        assert [model.name for model in each.models] == [NAME]
        assert each.latent_token == b""


def test_psi_multiplies_z(shapes: Stub) -> None:
    def of(**fields: object) -> float:
        return green(generated(shapes, seeds=[8], class_name="star", **fields)[0])

    whole = of(truncation_psi=1)
    assert abs(whole) > 0.05
    assert of(truncation_psi=2) == pytest.approx(2 * whole, abs=0.01)
    assert of() == pytest.approx(0.7 * whole, abs=0.01)
    assert of(truncation_psi=0) == pytest.approx(0, abs=0.005)


def test_a_seed_is_one_latent_whatever_the_class(shapes: Stub) -> None:
    circle, star = (generated(shapes, seeds=[3], class_name=c)[0] for c in ("circle", "star"))
    assert green(circle) == pytest.approx(green(star), abs=0.01)
    other = generated(shapes, seeds=[11], class_name="star")[0]
    assert green(other) != pytest.approx(green(star), abs=0.01)


@pytest.mark.parametrize("name", ["", "triangle"])
def test_an_unknown_class_is_refused_with_the_known_ones(shapes: Stub, name: str) -> None:
    request = generate_pb2.GenerateRequest(seeds=[1], class_name=name, generator=NAME)
    failure = failing(shapes.Generate, request)
    assert failure.code is Code.NOT_FOUND
    assert failure.reason == "UNKNOWN_CLASS"
    assert failure.info["field"] == "class_name"
    assert all(known in failure.message for known in CLASSES)


def test_what_needs_latents_is_refused(shapes: Stub) -> None:
    layers = edit_pb2.LayerRange(start=0, end=1)
    edit = edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[0]))
    for field, given in (
        ("mixing", {"mixing": generate_pb2.StyleMixing(seed=1, layers=layers)}),
        ("edits", {"edits": [edit]}),
    ):
        request = generate_pb2.GenerateRequest(seeds=[1], class_name="star", **given)  # type: ignore[arg-type]
        failure = failing(shapes.Generate, request)
        assert failure.code is Code.FAILED_PRECONDITION
        assert failure.info["field"] == field
        assert NAME in failure.message


def test_an_unknown_generator_is_refused_with_the_known_ones(shapes: Stub) -> None:
    request = generate_pb2.GenerateRequest(seeds=[1], class_name="star", generator="forms")
    failure = failing(shapes.Generate, request)
    assert failure.code is Code.NOT_FOUND
    assert failure.info["field"] == "generator"
    assert NAME in failure.message


def test_a_caller_who_hangs_up_stops_the_work(shapes: Stub, class_server: RunningServer) -> None:
    before = class_server.total("velatura_batch_size_sum", model=NAME)
    call = shapes.Generate(generate_pb2.GenerateRequest(seeds=range(256), class_name="star"))
    next(iter(call))
    call.cancel()
    generated(shapes, seeds=[1], class_name="star")
    assert class_server.total("velatura_batch_size_sum", model=NAME) - before < 200
    assert call.code() is grpc.StatusCode.CANCELLED


def test_the_client_lists_and_samples_the_classes(class_server: RunningServer) -> None:
    with Client(class_server.address) as client:
        (model,) = client.list_models().models
        assert (model.name, model.role, model.labels) == (NAME, "class_generator", CLASSES)
        (sample,) = client.generate([5], class_name="square", generator=NAME, output="png")
        assert sample.latent_token == b""
        assert sample.picture.pil.size == (SIZE, SIZE)


def test_the_command_line_lists_and_samples_the_classes(
    class_server: RunningServer, tmp_path: Path
) -> None:
    server = ["--server", class_server.address]
    listed = CliRunner().invoke(app, ["models", *server])
    assert f"Classes of {NAME}: {', '.join(CLASSES)}" in listed.output
    target = tmp_path / "star.png"
    options = ["--seed", "1", "--class", "star", "--generator", NAME, "--out", str(target)]
    assert CliRunner().invoke(app, ["generate", *options, *server]).exit_code == 0
    assert Image.open(target).getpixel((0, 0))[0] == RED["star"]  # type: ignore[index]
