"""The Open Inference Protocol: tritonclient on every network, and every mistake in a tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc
from velatura.server import __version__
from velatura.v1.bundle_pb2 import BundleManifest, ModelEntry, TensorSpec

from ..running import RunningServer, start_server
from .failures import failing
from .triton import Refused, TritonClient
from .typed_bundle import write_typed_bundle

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Stub = open_inference_pb2_grpc.GRPCInferenceServiceStub
Code = grpc.StatusCode
DATATYPES = {"float32": "FP32"}  # of the bundle; the others have tests of their own
EMBEDDED = [
    "avatar-synthesis",
    "avatar-mapping",
    "avatar-encoder",
    "avatar-segmenter",
    "avatar-segmenter-unet",
    "avatar-expressions",
    "style-predictor",
    "style-transformer",
    "style-presets",
]


@pytest.fixture(scope="module")
def triton(server: RunningServer) -> Iterator[TritonClient]:
    client = TritonClient(server.address)
    yield client
    client.close()


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Stub:
    return Stub(channel)


@pytest.fixture(scope="module")
def entries(bundle_path: Path) -> dict[str, ModelEntry]:
    """The bundle's networks by name."""
    manifest = json_format.Parse((bundle_path / "manifest.json").read_bytes(), BundleManifest())
    return {entry.name: entry for entry in manifest.models}


@pytest.fixture(scope="module")
def alone(bundle_path: Path, entries: dict[str, ModelEntry]) -> Any:
    """`alone(model, inputs)`: outputs of onnxruntime by itself, on the same graph."""
    sessions: dict[str, ort.InferenceSession] = {}

    def run(model: str, inputs: Arrays) -> Arrays:
        if model not in sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            file = str(bundle_path / entries[model].file)
            sessions[model] = ort.InferenceSession(file, options, ["CPUExecutionProvider"])
        names = [spec.name for spec in entries[model].outputs]
        return dict(zip(names, sessions[model].run(names, inputs), strict=True))

    return run


def some_inputs(
    entry: ModelEntry, items: int, size: tuple[int, int] = (64, 64), seed: int = 0
) -> Arrays:
    """Random inputs of `items` items in the ranges of the manifest, free extents as `size`."""
    rng = np.random.default_rng(seed)

    def tensor(spec: TensorSpec) -> Array:
        free = iter(size)
        fixed = [next(free) if extent == -1 else extent for extent in list(spec.shape)[1:]]
        if spec.range_max > spec.range_min:
            numbers = rng.uniform(spec.range_min, spec.range_max, (items, *fixed))
        else:
            numbers = rng.standard_normal((items, *fixed))
        return numbers.astype(spec.dtype)

    return {spec.name: tensor(spec) for spec in entry.inputs}


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        # Outputs such as logits are larger than 1: their last digits are larger as well.
        limit = 1e-5 * max(1.0, float(np.abs(array).max()))
        assert float(np.abs(found[name] - array).max()) <= limit, name


# What the server says about itself


@pytest.mark.parametrize("ask", ["ask", "ask_aio"])
def test_state_and_metadata(triton: TritonClient, entries: dict[str, ModelEntry], ask: str) -> None:
    call = getattr(triton, ask)
    assert call("is_server_live") is True
    assert call("is_server_ready") is True
    assert call("get_server_metadata", as_json=True) == {
        "name": "velatura",
        "version": __version__,
    }
    for name, entry in entries.items():
        assert call("is_model_ready", model_name=name) is True
        assert call("is_model_ready", model_name=name, model_version=entry.version) is True
        found = call("get_model_metadata", model_name=name, as_json=True)
        assert found == {
            "name": name,
            "versions": [entry.version],
            "platform": "onnxruntime_onnx",
            "inputs": described(entry.inputs),
            "outputs": described(entry.outputs),
        }


def described(specs: Any) -> list[dict[str, Any]]:
    """Tensors as tritonclient's JSON has them: 64-bit integers as text."""
    return [
        {
            "name": spec.name,
            "datatype": DATATYPES[spec.dtype],
            "shape": [str(extent) for extent in spec.shape],
        }
        for spec in specs
    ]


def test_what_is_not_there_is_not_ready_and_has_no_metadata(triton: TritonClient) -> None:
    assert triton.ask("is_model_ready", model_name="avatar") is False
    assert triton.ask("is_model_ready", model_name="avatar-mapping", model_version="9") is False
    with pytest.raises(
        Refused, match=r"model 'avatar' is not in the bundle.*avatar-mapping"
    ) as bad:
        triton.ask("get_model_metadata", model_name="avatar")
    assert bad.value.status == "StatusCode.NOT_FOUND"
    with pytest.raises(Refused, match=r"avatar-mapping, version 9.*avatar-mapping, version") as bad:
        triton.ask("get_model_metadata", model_name="avatar-mapping", model_version="9")
    assert bad.value.status == "StatusCode.NOT_FOUND"


def test_tritons_own_extensions_are_unimplemented(triton: TritonClient) -> None:
    for method in ("get_model_config", "get_inference_statistics", "get_trace_settings"):
        with pytest.raises(Refused) as raised:
            triton.ask(method, model_name="avatar-mapping")
        assert raised.value.status == "StatusCode.UNIMPLEMENTED"


def test_reflection_and_health_know_the_service(channel: grpc.Channel) -> None:
    service = "inference.GRPCInferenceService"
    assert service in ProtoReflectionDescriptorDatabase(channel).get_services()
    answer = health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=service)
    )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


# Inference


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("model", EMBEDDED)
def test_results_are_onnxruntimes_own(
    triton: TritonClient, entries: dict[str, ModelEntry], alone: Any, model: str, items: int
) -> None:
    inputs = some_inputs(entries[model], items)
    answer = triton.infer(model, inputs, request_id=f"{model}-{items}")
    assert_same(answer.outputs, alone(model, inputs))
    assert answer.id == f"{model}-{items}"
    assert (answer.model, answer.version) == (model, entries[model].version)


def test_every_network_is_tested(entries: dict[str, ModelEntry]) -> None:
    assert set(entries) == set(EMBEDDED)


@pytest.mark.parametrize("size", [(32, 48), (100, 52)])
def test_free_extents_may_have_any_size(
    triton: TritonClient, entries: dict[str, ModelEntry], alone: Any, size: tuple[int, int]
) -> None:
    inputs = some_inputs(entries["style-presets"], 2, size)
    answer = triton.infer("style-presets", inputs)
    assert answer.outputs["image_out"].shape == (2, 3, *size)
    assert_same(answer.outputs, alone("style-presets", inputs))


def test_more_items_than_a_batch_holds_are_split_and_joined(
    triton: TritonClient, entries: dict[str, ModelEntry], alone: Any
) -> None:
    inputs = some_inputs(entries["avatar-mapping"], 37)
    answer = triton.infer("avatar-mapping", inputs)
    assert_same(answer.outputs, alone("avatar-mapping", inputs))


def test_concurrent_calls_share_batches_and_get_their_own_answers(
    triton: TritonClient, entries: dict[str, ModelEntry], alone: Any, server: RunningServer
) -> None:
    model = "avatar-synthesis"
    many = [some_inputs(entries[model], 1, seed=seed) for seed in range(24)]

    def batches() -> float:
        return server.total("velatura_batch_size_count", model=model)

    before = batches()
    answers = triton.infer_together(model, many)
    assert batches() - before <= 12, "calls that wait for the device go together"
    for inputs, answer in zip(many, answers, strict=True):
        assert_same(answer.outputs, alone(model, inputs))


def test_typed_contents_are_as_good_as_raw(
    stub: Stub, entries: dict[str, ModelEntry], alone: Any
) -> None:
    # More elements than are read on the event loop.
    for model, items in (("avatar-mapping", 2), ("avatar-encoder", 2)):
        inputs = some_inputs(entries[model], items)
        answer = stub.ModelInfer(typed(model, inputs))
        assert_same(outputs_of(answer), alone(model, inputs))


@pytest.fixture(scope="module")
def types_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose only network takes other element types."""
    bundle = write_typed_bundle(tmp_path_factory.mktemp("types"))
    running = start_server(bundle, tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


TYPES: Arrays = {
    "half": np.array([[0.5, -1.25, 65504]], np.float16),
    "pixels": np.array([[0, 127, 128, 255]], np.uint8),
    "places": np.array([[2**40, -1]], np.int64),
    "narrow": np.array([[-127, 0, 127]], np.int8),
    "flags": np.array([[True, False, True]], np.bool_),
}
TYPES_OUT: Arrays = {
    "half_out": -TYPES["half"],
    "pixels_out": TYPES["pixels"],
    "places_out": -TYPES["places"],
    "narrow_out": -TYPES["narrow"],
    "flags_out": ~TYPES["flags"],
}


def test_element_types_and_chosen_outputs(types_server: RunningServer) -> None:
    client = TritonClient(types_server.address)
    try:
        metadata = client.ask("get_model_metadata", model_name="types", as_json=True)
        kinds = ["FP16", "UINT8", "INT64", "INT8", "BOOL"]
        assert [each["datatype"] for each in metadata["inputs"]] == kinds
        found = client.infer("types", TYPES).outputs
        assert list(found) == list(TYPES_OUT)
        for name, array in TYPES_OUT.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array), name
        chosen = client.infer("types", TYPES, ["places_out", "half_out"]).outputs
        assert list(chosen) == ["places_out", "half_out"]
        assert np.array_equal(chosen["places_out"], TYPES_OUT["places_out"])
        with pytest.raises(Refused, match=r"output 'halves' of model 'types'.*half_out") as raised:
            client.infer("types", TYPES, ["half_out", "halves"])
        assert raised.value.status == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(Refused, match=r"'half' of model 'types'.*'FP16'.*'FP32'"):
            client.infer("types", {**TYPES, "half": TYPES["half"].astype(np.float32)})
    finally:
        client.close()


# Mistakes

W = np.zeros((1, 12, 128), np.float32)


@pytest.mark.parametrize(
    ("model", "inputs", "status", "words"),
    [
        pytest.param("avatar", {"w_plus": W}, "NOT_FOUND", ["'avatar'", "avatar-synthesis"]),
        pytest.param(
            "avatar-synthesis",
            {"w": W},
            "INVALID_ARGUMENT",
            ["'w'", "one of w_plus", "unknown name"],
        ),
        pytest.param(
            "avatar-synthesis",
            {"w_plus": W[:, :11]},
            "INVALID_ARGUMENT",
            ["'w_plus'", "float32 [N, 12, 128]", "[1, 11, 128]"],
        ),
        pytest.param(
            "avatar-synthesis",
            {"w_plus": W[0]},
            "INVALID_ARGUMENT",
            ["'w_plus'", "float32 [N, 12, 128]", "[12, 128]"],
        ),
        pytest.param(
            "avatar-synthesis",
            {"w_plus": W.astype(np.float64)},
            "INVALID_ARGUMENT",
            ["'w_plus'", "'FP32'", "'FP64'"],
        ),
        pytest.param(
            "avatar-mapping",
            {"z": np.zeros((2, 128), np.float32)},
            "INVALID_ARGUMENT",
            ["'truncation_psi'", "float32 [N]", "nothing"],
        ),
        pytest.param(
            "avatar-mapping",
            {"z": np.zeros((2, 128), np.float32), "truncation_psi": np.ones(3, np.float32)},
            "INVALID_ARGUMENT",
            ["'truncation_psi'", "2 items", "3 items"],
        ),
        pytest.param(
            "avatar-synthesis",
            {"w_plus": W * np.float32("nan")},
            "INVALID_ARGUMENT",
            ["'w_plus'", "finite"],
        ),
    ],
)
def test_mistakes_are_named_to_tritonclient(
    triton: TritonClient, model: str, inputs: Arrays, status: str, words: list[str]
) -> None:
    with pytest.raises(Refused) as raised:
        triton.infer(model, inputs)
    assert raised.value.status == f"StatusCode.{status}"
    for word in [*words, model]:
        assert word in raised.value.message
    assert triton.infer("avatar-synthesis", {"w_plus": W}).outputs["image"].shape[0] == 1


def test_a_timeout_that_cannot_be_met_is_refused_before_the_device(
    triton: TritonClient, server: RunningServer
) -> None:
    def batches() -> float:
        return server.total("velatura_batch_size_count", model="avatar-synthesis")

    before = batches()
    with pytest.raises(Refused, match="deadline passed before model 'avatar-synthesis'") as raised:
        triton.infer("avatar-synthesis", {"w_plus": W}, timeout=1)
    assert raised.value.status == "StatusCode.DEADLINE_EXCEEDED"
    assert batches() == before
    assert triton.infer("avatar-synthesis", {"w_plus": W}, timeout=60_000_000).outputs


def raw(model: str = "avatar-synthesis") -> oip.ModelInferRequest:
    """A good request with raw contents."""
    request = oip.ModelInferRequest(model_name=model)
    request.inputs.add(name="w_plus", datatype="FP32", shape=W.shape)
    request.raw_input_contents.append(W.tobytes())
    return request


def typed(model: str, inputs: Arrays) -> oip.ModelInferRequest:
    """A request with float32 inputs as typed contents."""
    request = oip.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        tensor = request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        tensor.contents.fp32_contents.extend(array.ravel().tolist())
    return request


def outputs_of(answer: oip.ModelInferResponse) -> Arrays:
    return {
        tensor.name: np.frombuffer(data, "<f4").reshape(tensor.shape)
        for tensor, data in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def both(request: oip.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend([0.0] * W.size)


def one_entry_too_many(request: oip.ModelInferRequest) -> None:
    request.raw_input_contents.append(b"")


def short_bytes(request: oip.ModelInferRequest) -> None:
    request.raw_input_contents[0] = request.raw_input_contents[0][:-4]


def negative_extent(request: oip.ModelInferRequest) -> None:
    request.inputs[0].shape[0] = -1


def twice(request: oip.ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def no_contents(request: oip.ModelInferRequest) -> None:
    del request.raw_input_contents[:]


def wrong_list(request: oip.ModelInferRequest) -> None:
    no_contents(request)
    request.inputs[0].contents.fp64_contents.extend([0.0] * W.size)


def short_list(request: oip.ModelInferRequest) -> None:
    no_contents(request)
    request.inputs[0].contents.fp32_contents.extend([0.0] * 5)


def shared_memory(request: oip.ModelInferRequest) -> None:
    no_contents(request)
    request.inputs[0].parameters["shared_memory_region"].string_param = "region"


def unknown_datatype(request: oip.ModelInferRequest) -> None:
    request.inputs[0].datatype = "BYTES"


def classification(request: oip.ModelInferRequest) -> None:
    request.outputs.add(name="image").parameters["classification"].int64_param = 3


@pytest.mark.parametrize(
    ("spoil", "field", "words"),
    [
        (both, "inputs[0]", ["in one place", "raw_input_contents and in contents.fp32_contents"]),
        (one_entry_too_many, "raw_input_contents", ["2 entries for 1 inputs"]),
        (short_bytes, "inputs[0]", ["6,144 bytes", "6,140 bytes"]),
        (negative_extent, "inputs[0]", ["[N, 12, 128]", "[-1, 12, 128]"]),
        (twice, "inputs[1]", ["once", "twice"]),
        (no_contents, "inputs[0]", ["1,536 elements in contents.fp32_contents", "no contents"]),
        (wrong_list, "inputs[0]", ["contents.fp32_contents", "contents.fp64_contents"]),
        (short_list, "inputs[0]", ["1,536 elements in contents.fp32_contents", "5"]),
        (shared_memory, "inputs[0]", ["shared memory"]),
        (unknown_datatype, "inputs[0]", ["'FP32'", "'BYTES'"]),
        (classification, "outputs[0]", ["no parameters", "classification"]),
    ],
)
def test_contents_that_do_not_fit_are_named(
    stub: Stub, spoil: Any, field: str, words: list[str]
) -> None:
    request = raw()
    spoil(request)
    failure = failing(stub.ModelInfer, request)
    assert (failure.code, failure.reason) == (Code.INVALID_ARGUMENT, "INVALID_TENSOR")
    assert failure.fields == [field]
    for word in [*words, "avatar-synthesis"]:
        assert word in failure.message
    assert outputs_of(stub.ModelInfer(raw()))["image"].shape == (1, 3, 128, 128)


def test_the_log_and_the_metrics_know_the_calls(stub: Stub, server: RunningServer) -> None:
    labels = {
        "grpc_service": "inference.GRPCInferenceService",
        "grpc_method": "ModelInfer",
        "grpc_code": "OK",
    }
    before = server.total("grpc_server_handled_total", **labels)
    stub.ModelInfer(raw(), metadata=(("x-request-id", "raw-tensors-1"),))
    assert server.total("grpc_server_handled_total", **labels) == before + 1
    lines = json.dumps(server.events())
    assert "raw-tensors-1" in lines
