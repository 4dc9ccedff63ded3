"""Servers on OpenVINO: in float32 every answer is the CPU provider's within rounding, and in
bfloat16 the generator's images stay near it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import json_format

from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc
from velatura.server.engine.openvino import Precision
from velatura.server.engine.warming import sample_inputs
from velatura.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    edit_pb2,
    edit_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    image_pb2,
    segment_pb2,
    segment_pb2_grpc,
    stylize_pb2,
    stylize_pb2_grpc,
)
from velatura.v1.bundle_pb2 import BundleManifest, ModelEntry

from ..openvino_cpu import openvino_cpu
from ..running import RunningServer, png, samples, start_server

Arrays = dict[str, np.ndarray[Any, Any]]
Ask = Callable[[grpc.Channel], image_pb2.Image]
Catalog = catalog_pb2_grpc.CatalogServiceStub
# Levels of 255 that rounding in float32 may move a sample by.
ROUNDING = 1
# What bfloat16 must keep of the generator's images, against float32.
LEAST_DB = 40.0


def started(
    bundle: Path, factory: pytest.TempPathFactory, precision: Precision
) -> Iterator[RunningServer]:
    """A server that refuses to start unless OpenVINO runs its networks."""
    openvino_cpu(precision)
    flags = ["--provider", "openvino", "--openvino-precision", precision, "--strict-provider"]
    running = start_server(bundle, factory.mktemp("openvino"), flags)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def openvino(
    bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    yield from started(bundle_path, tmp_path_factory, Precision.F32)


@pytest.fixture(scope="module")
def openvino_bf16(
    bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    yield from started(bundle_path, tmp_path_factory, Precision.BF16)


@pytest.fixture(scope="module")
def entries(bundle_path: Path) -> dict[str, ModelEntry]:
    manifest = json_format.Parse((bundle_path / "manifest.json").read_bytes(), BundleManifest())
    return {entry.name: entry for entry in manifest.models}


def inferred(channel: grpc.Channel, model: str, inputs: Arrays) -> Arrays:
    """Outputs of `model` by ModelInfer."""
    request = oip.ModelInferRequest(
        model_name=model,
        inputs=[
            oip.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=array.shape)
            for name, array in inputs.items()
        ],
        raw_input_contents=[array.tobytes() for array in inputs.values()],
    )
    answer = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    return {
        tensor.name: np.frombuffer(raw, np.float32).reshape(tuple(tensor.shape))
        for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def edited(channel: grpc.Channel) -> image_pb2.Image:
    edit = edit_pb2.Edit(direction=edit_pb2.DirectionEdit(name="smile", strength=1))
    request = edit_pb2.EditImageRequest(image=png(150, 130), edits=[edit])
    return edit_pb2_grpc.EditServiceStub(channel).EditImage(request).image


def painted(channel: grpc.Channel) -> image_pb2.Image:
    style = stylize_pb2.StyleSource(image=png(200, 140, 7))
    request = stylize_pb2.StylizeRequest(content=png(133, 90), styles=[style])
    return stylize_pb2_grpc.StyleServiceStub(channel).Stylize(request).image


def preset(channel: grpc.Channel) -> image_pb2.Image:
    names = Catalog(channel).ListStyles(catalog_pb2.ListStylesRequest()).styles
    style = stylize_pb2.StyleSource(preset=names[0].name)
    request = stylize_pb2.StylizeRequest(content=png(96, 128), styles=[style])
    return stylize_pb2_grpc.StyleServiceStub(channel).Stylize(request).image


def generated(channel: grpc.Channel) -> image_pb2.Image:
    request = generate_pb2.GenerateRequest(seeds=[7])
    (answer,) = generate_pb2_grpc.GenerateServiceStub(channel).Generate(request)
    image: image_pb2.Image = answer.image
    return image


@pytest.mark.parametrize("ask", [edited, painted, preset, generated], ids=lambda ask: ask.__name__)
def test_pictures_are_the_cpus(channel: grpc.Channel, openvino: RunningServer, ask: Ask) -> None:
    expected, found = samples(ask(channel)), samples(ask(openvino.channel()))
    assert expected.std() > 10
    assert np.abs(expected - found).max() <= ROUNDING


def test_labels_are_the_cpus(channel: grpc.Channel, openvino: RunningServer) -> None:
    request = segment_pb2.SegmentRequest(image=png(160, 120))
    expected, found = (
        samples(segment_pb2_grpc.SegmentServiceStub(each).Segment(request).label_map)
        for each in (channel, openvino.channel())
    )
    assert len(np.unique(expected)) > 1
    assert (expected != found).mean() < 1e-3  # where two classes are equally likely


def test_raw_tensors_of_every_network_are_the_cpus(
    channel: grpc.Channel, openvino: RunningServer, entries: dict[str, ModelEntry]
) -> None:
    for name, entry in entries.items():
        inputs = sample_inputs(entry, 2, 96)
        expected = inferred(channel, name, inputs)
        for output, found in inferred(openvino.channel(), name, inputs).items():
            error = np.abs(found - expected[output]).max()
            assert error <= ROUNDING / 255 * np.ptp(expected[output]), (name, output)


@pytest.mark.parametrize("precision", Precision)
def test_the_catalog_and_the_metrics_name_openvino(
    request: pytest.FixtureRequest, precision: Precision
) -> None:
    fixture = "openvino" if precision is Precision.F32 else "openvino_bf16"
    running: RunningServer = request.getfixturevalue(fixture)
    answer = Catalog(running.channel()).ListModels(catalog_pb2.ListModelsRequest())
    assert answer.models
    assert {each.provider for each in answer.models} == {"OpenVINOExecutionProvider"}
    assert running.total("velatura_provider_info", requested="openvino") == len(answer.models)
    assert running.total("velatura_provider_fallback_total") == 0
    ready = {
        event["event"].split(":")[0]: event["event"]
        for event in running.events()
        if event.get("event", "").startswith("model avatar-")
    }
    assert f"OpenVINOExecutionProvider in {precision}" in ready["model avatar-synthesis"]
    assert "OpenVINOExecutionProvider in f32" in ready["model avatar-mapping"]


def test_bfloat16_keeps_the_generators_images(
    channel: grpc.Channel, openvino_bf16: RunningServer, entries: dict[str, ModelEntry]
) -> None:
    latents = {"w_plus": sample_inputs(entries["avatar-synthesis"], 4)["w_plus"]}
    expected, found = (
        np.clip(inferred(each, "avatar-synthesis", latents)["image"], -1, 1)
        for each in (channel, openvino_bf16.channel())
    )
    error = float(np.square(expected - found).mean())
    assert error > 0  # bfloat16 it was
    assert 10 * math.log10(4 / error) >= LEAST_DB


def test_a_seed_is_the_same_face_in_bfloat16(
    channel: grpc.Channel, openvino_bf16: RunningServer
) -> None:
    """Though its latents come from a network that bfloat16 would ruin."""
    expected, found = (
        samples(generated(each)).astype(np.float64) for each in (channel, openvino_bf16.channel())
    )
    assert 10 * math.log10(255**2 / np.square(expected - found).mean()) >= LEAST_DB
