"""Somebody's own generator, from weights to a server that never heard of avatars.

Whatever of the contract needs directions that move some layers only is asked here as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from velatura.export.checkpoints.native import save_weights
from velatura.export.cli import app
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    edit_pb2,
    edit_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
)

from ..running import RunningServer, opened, png, samples, start_server
from .failures import failing

CONFIG = GeneratorConfig(
    resolution=32,
    z_dim=8,
    w_dim=8,
    mapping_layers=2,
    channels={4: 8, 8: 8, 16: 4, 32: 4},
)
NUM_WS = 8
Code = grpc.StatusCode


def export(*arguments: str | Path) -> None:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Random weights → directions → bundle → server, by the commands that people type."""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    weights, directions = folder / "pets.safetensors", folder / "directions.json"
    save_weights(weights, Generator(CONFIG), CONFIG)
    export("directions", "ganspace", "-g", weights, "-o", directions, "--layers", "middle")
    export("bundle", "-g", weights, "--directions", directions, "-o", folder / "bundle")
    running = start_server(folder / "bundle", folder)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def own(served: RunningServer) -> grpc.Channel:
    return served.channel()


@pytest.fixture(scope="module")
def editing(own: grpc.Channel) -> edit_pb2_grpc.EditServiceStub:
    return edit_pb2_grpc.EditServiceStub(own)


def sample(own: grpc.Channel, seed: int) -> generate_pb2.GenerateResponse:
    stub = generate_pb2_grpc.GenerateServiceStub(own)
    (answer,) = stub.Generate(generate_pb2.GenerateRequest(seeds=[seed]))
    return answer


def latents(token: bytes) -> np.ndarray:
    return np.frombuffer(token[17:-8], "<f4").reshape(NUM_WS, -1)


def along(name: str, *layers: int) -> edit_pb2.Edit:
    direction = edit_pb2.DirectionEdit(name=name, strength=2)
    if layers:
        direction.layers.start, direction.layers.end = layers
    return edit_pb2.Edit(direction=direction)


def test_the_catalog_lists_it(own: grpc.Channel) -> None:
    catalog = catalog_pb2_grpc.CatalogServiceStub(own)
    models = catalog.ListModels(catalog_pb2.ListModelsRequest())
    assert [each.entry.name for each in models.models] == ["pets-synthesis", "pets-mapping"]
    assert all(each.ready for each in models.models)
    (generator,) = models.generators
    assert (generator.name, generator.encoder, generator.resolution) == ("pets", "", 32)
    found = catalog.ListDirections(catalog_pb2.ListDirectionsRequest()).directions
    assert [each.name for each in found] == [f"ganspace-{rank}" for rank in range(5)]
    assert {(each.layer_start, each.layer_end) for each in found} == {(4, 8)}
    assert all(each.min_strength < 0 < each.max_strength for each in found)
    assert not catalog.ListStyles(catalog_pb2.ListStylesRequest()).styles


def test_it_samples(own: grpc.Channel) -> None:
    first, second = sample(own, 1), sample(own, 2)
    assert opened(first.image).size == (32, 32)
    assert np.abs(samples(first.image) - samples(second.image)).max() > 0
    assert sample(own, 1).image.encoded == first.image.encoded


def test_a_sample_is_edited_in_the_directions_layers_only(
    own: grpc.Channel, editing: edit_pb2_grpc.EditServiceStub
) -> None:
    before = sample(own, 3)
    request = edit_pb2.EditImageRequest(latent_token=before.latent_token)
    request.edits.append(along("ganspace-0"))
    after = editing.EditImage(request)
    moved = latents(after.latent_token) - latents(before.latent_token)
    assert not moved[:4].any()
    assert np.abs(moved[4:]).max() > 0
    assert moved[4:] == pytest.approx(np.repeat(moved[4:5], 4, axis=0), abs=1e-6)
    assert np.abs(samples(after.image) - samples(before.image)).max() > 0


def test_layers_choose_among_the_directions_own(
    own: grpc.Channel, editing: edit_pb2_grpc.EditServiceStub
) -> None:
    before = sample(own, 3)
    request = edit_pb2.EditImageRequest(latent_token=before.latent_token)
    request.edits.append(along("ganspace-0", 2, 6))
    moved = latents(editing.EditImage(request).latent_token) - latents(before.latent_token)
    assert not moved[[0, 1, 2, 3, 6, 7]].any()
    assert np.abs(moved[4:6]).min(axis=1).max() > 0


def test_layers_that_the_direction_has_nothing_in_are_refused(
    own: grpc.Channel, editing: edit_pb2_grpc.EditServiceStub
) -> None:
    request = edit_pb2.EditImageRequest(latent_token=sample(own, 3).latent_token)
    request.edits.extend([along("ganspace-0"), along("ganspace-1", 0, 4)])
    failure = failing(editing.EditImage, request)
    assert failure.code is Code.INVALID_ARGUMENT
    assert failure.fields == ["edits[1].direction.layers"]
    assert "'ganspace-1' moves layers 4..8, and 0..4 has none of them" in failure.message


def test_an_image_is_refused_since_there_is_no_encoder(
    editing: edit_pb2_grpc.EditServiceStub,
) -> None:
    image = png(40, 40)
    for failure in (
        failing(
            editing.EditImage,
            edit_pb2.EditImageRequest(image=image, edits=[along("ganspace-0")]),
        ),
        failing(editing.Encode, edit_pb2.EncodeRequest(image=image)),
    ):
        assert failure.code is Code.FAILED_PRECONDITION
        assert "generator 'pets' has no encoder" in failure.message
        assert "latent_token" in failure.message


def test_an_image_with_its_latents_needs_no_encoder(
    own: grpc.Channel, editing: edit_pb2_grpc.EditServiceStub
) -> None:
    before = sample(own, 4)
    request = edit_pb2.EditImageRequest(image=before.image, latent_token=before.latent_token)
    request.edits.append(along("ganspace-0"))
    answer = editing.EditImage(request)
    assert opened(answer.image).size == (32, 32)
    assert answer.change.mean_difference_inside > 0
