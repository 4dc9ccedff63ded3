"""A segmenter of another project, from its file to the answers of the unchanged server."""

from __future__ import annotations

from collections.abc import Iterator

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
    region_pb2,
    segment_pb2,
    segment_pb2_grpc,
)

from ..running import RunningServer, opened, picture, png, samples, start_server
from ..unit.export import segmenter_files

CONFIG = GeneratorConfig(
    resolution=16, z_dim=8, w_dim=8, mapping_layers=2, channels={4: 8, 8: 8, 16: 4}
)
SIZE = 32
CLASSES = ["background", "cat", "dog"]


@pytest.fixture(scope="module")
def unet() -> segmenter_files.State:
    """milesial's layout, with every class somewhere."""
    state = segmenter_files.unet(classes=len(CLASSES), width=4, bilinear=False, bias=True)
    logits = segmenter_files.unet_logits(state, _seen(SIZE, SIZE))
    state["outc.conv.bias"] -= logits.mean(dim=(0, 2, 3)).float()
    return state


@pytest.fixture(scope="module")
def served(
    unet: segmenter_files.State, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("segmenter")
    torch.manual_seed(0)
    weights, names = folder / "pets.safetensors", folder / "names.txt"
    save_weights(weights, Generator(CONFIG), CONFIG)
    torch.save({"state_dict": unet}, folder / "unet.pth")
    names.write_text("\n".join(CLASSES))
    given = ["--segmenter", folder / "unet.pth", "--segmenter-classes", names]
    arguments = ["bundle", "-g", weights, *given, "--segmenter-size", SIZE, "-o", folder / "bundle"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    running = start_server(folder / "bundle", folder)
    yield running
    running.stop()


def _seen(width: int, height: int) -> torch.Tensor:
    """The test picture as milesial's scripts would give it: [1, 3, H, W] in [0, 1]."""
    pixels = np.asarray(picture(width, height), np.float64) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def test_it_segments_as_its_project_would(
    served: RunningServer, unet: segmenter_files.State
) -> None:
    stub = segment_pb2_grpc.SegmentServiceStub(served.channel())
    answer = stub.Segment(segment_pb2.SegmentRequest(image=png(SIZE, SIZE), with_overlay=True))
    labels = np.asarray(opened(answer.label_map))
    logits = segmenter_files.unet_logits(unet, _seen(SIZE, SIZE))[0]
    best = logits.topk(2, dim=0).values
    certain = (best[0] - best[1] > 1e-4).numpy()
    assert certain.mean() > 0.99
    np.testing.assert_array_equal(labels[certain], logits.argmax(dim=0).numpy()[certain])
    assert [each.name for each in answer.areas] == CLASSES
    assert all(each.pixels for each in answer.areas)
    assert opened(answer.overlay).size == (SIZE, SIZE)
    assert [each.name for each in answer.models] == ["pets-segmenter"]


def test_any_size_is_covered(served: RunningServer) -> None:
    stub = segment_pb2_grpc.SegmentServiceStub(served.channel())
    answer = stub.Segment(segment_pb2.SegmentRequest(image=png(90, 47)))
    assert opened(answer.label_map).size == (90, 47)


def test_its_classes_are_regions(served: RunningServer) -> None:
    channel = served.channel()
    generated = generate_pb2_grpc.GenerateServiceStub(channel)
    (sample,) = generated.Generate(generate_pb2.GenerateRequest(seeds=[1]))
    region = region_pb2.Region(parts=[region_pb2.RegionPart(class_name="dog")])
    request = edit_pb2.EditImageRequest(
        image=png(40, 40), latent_token=sample.latent_token, region=region
    )
    offset = edit_pb2.OffsetEdit(values=[2.0])
    offset.layers.start, offset.layers.end = 0, CONFIG.num_ws
    request.edits.append(edit_pb2.Edit(offset=offset))
    answer = edit_pb2_grpc.EditServiceStub(channel).EditImage(request)
    labels = segment_pb2_grpc.SegmentServiceStub(channel).Segment(
        segment_pb2.SegmentRequest(image=png(40, 40))
    )
    dog = np.asarray(opened(labels.label_map)) == CLASSES.index("dog")
    changed = (samples(answer.image) != np.asarray(picture(40, 40))).any(axis=2)
    assert changed.any()
    assert not changed[~dog].any()


def test_the_catalog_has_its_classes_and_its_proof(served: RunningServer) -> None:
    catalog = catalog_pb2_grpc.CatalogServiceStub(served.channel())
    models = catalog.ListModels(catalog_pb2.ListModelsRequest()).models
    (entry,) = (each.entry for each in models if each.entry.name == "pets-segmenter")
    assert list(entry.labels) == CLASSES
    assert list(entry.inputs[0].shape) == [-1, 3, SIZE, SIZE]
    assert {each.size for each in entry.verifications} == {0, SIZE + 16}
