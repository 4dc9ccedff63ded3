"""A BigGAN checkpoint and VGG's features, from the files to a server that is as it was."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc
from velatura.export.cli import app
from velatura.v1 import generate_pb2, generate_pb2_grpc

from ..running import RunningServer, samples, start_server
from ..unit.export import biggan_files

CLASSES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture(scope="module")
def state() -> biggan_files.State:
    return biggan_files.build(2)


@pytest.fixture(scope="module")
def vgg() -> dict[str, torch.Tensor]:
    """VGG's first two convolutions under torchvision's names."""
    torch.manual_seed(0)
    return {
        "features.0.weight": torch.randn(4, 3, 3, 3) * 0.3,
        "features.0.bias": torch.randn(4) * 0.1,
        "features.2.weight": torch.randn(4, 4, 3, 3) * 0.3,
        "features.2.bias": torch.randn(4) * 0.1,
    }


@pytest.fixture(scope="module")
def served(
    state: biggan_files.State,
    vgg: dict[str, torch.Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("extras")
    (folder / "names.txt").write_text("\n".join(CLASSES))
    torch.save(vgg, folder / "vgg.pth")
    command = ["bundle", "--class-generator", biggan_files.save(state, folder / "G_ema.pth")]
    command += ["--class-names", folder / "names.txt", "--features", folder / "vgg.pth"]
    command += ["--name", "zoo", "--out", folder / "bundle"]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0, done.output
    running = start_server(folder / "bundle", folder)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def channel(served: RunningServer) -> grpc.Channel:
    return served.channel()


def test_it_generates_what_the_checkpoint_makes(
    channel: grpc.Channel, state: biggan_files.State
) -> None:
    stub = generate_pb2_grpc.GenerateServiceStub(channel)
    request = generate_pb2.GenerateRequest(
        seeds=[7], class_name="cat", generator="zoo-classes", truncation_psi=0.5
    )
    (answer,) = stub.Generate(request)
    seed = np.random.Generator(np.random.Philox(key=7)).standard_normal(16)
    z = torch.from_numpy(seed[None] * 0.5)
    (image,) = biggan_files.image_of(state, z, torch.eye(5)[[CLASSES.index("cat")]])
    expected = (image.permute(1, 2, 0).numpy() + 1) * 127.5
    assert expected.std() > 10
    assert np.abs(samples(answer.image) - expected).max() < 1


def test_features_are_raw_tensors(channel: grpc.Channel, vgg: dict[str, torch.Tensor]) -> None:
    image = np.random.default_rng(0).random((2, 3, 40, 36)).astype(np.float32)
    request = oip.ModelInferRequest(
        model_name="zoo-features",
        inputs=[
            oip.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=image.shape)
        ],
        raw_input_contents=[image.tobytes()],
    )
    answer = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    (output,) = answer.outputs
    assert (output.name, list(output.shape)) == ("relu1_1", [2, 4, 40, 36])
    found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(output.shape)
    mean, deviation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    shifted = (torch.from_numpy(image) - torch.tensor(mean)[:, None, None]) / torch.tensor(
        deviation
    )[:, None, None]
    weight, bias = vgg["features.0.weight"], vgg["features.0.bias"]
    expected = torch.relu(torch.nn.functional.conv2d(shifted, weight, bias, padding=1))
    assert np.abs(found - expected.numpy()).max() < 1e-4
