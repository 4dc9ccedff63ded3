"""Typed and raw contents of every element type, to numpy and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference import open_inference_pb2 as oip
from velatura.server.engine.errors import InvalidTensor
from velatura.server.engine.manifest_check import NUMPY_DTYPES
from velatura.server.rpc.inference_tensors import DATATYPES, read_inputs, written_response
from velatura.v1.bundle_pb2 import ModelEntry, TensorSpec

LISTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def read(dtype: str, shape: list[int], data: bytes | None = None, **contents: Any) -> Any:
    """The array of a request with one input of the network "net"."""
    entry = ModelEntry(name="net")
    entry.inputs.add(name="x", dtype=dtype, shape=[-1, -1])
    request = oip.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=DATATYPES[dtype], shape=shape)
    for name, values in contents.items():
        getattr(tensor.contents, name).extend(values)
    if data is not None:
        request.raw_input_contents.append(data)
    return read_inputs(request, entry)["x"]


def extremes(dtype: str) -> Any:
    """[2, 2] with the type's least and greatest elements."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.array([[True, False], [False, True]])
    limits: Any = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    return np.array([[limits.min, limits.max], [0, 1]], kind)


def test_every_element_type_of_manifests_is_on_the_wire() -> None:
    assert set(DATATYPES) == NUMPY_DTYPES


@pytest.mark.parametrize("dtype", DATATYPES)
def test_contents_and_back(dtype: str) -> None:
    array = extremes(dtype)
    found = [read(dtype, [2, 2], array.tobytes())]
    if dtype != "float16":
        found.append(read(dtype, [2, 2], **{LISTS[DATATYPES[dtype]]: array.ravel().tolist()}))
    response = oip.ModelInferResponse.FromString(
        written_response(oip.ModelInferResponse(model_name="m"), {"y": array})
    )
    assert response.model_name == "m"
    found.append(read(dtype, [2, 2], response.raw_output_contents[0]))
    for each in found:
        assert each.dtype == array.dtype
        assert np.array_equal(each, array)
    assert response.outputs[0].datatype == DATATYPES[dtype]


def test_an_output_that_is_a_view_of_a_batch_is_written_in_its_own_order() -> None:
    batch = np.arange(24, dtype=np.float32).reshape(4, 3, 2).transpose(0, 2, 1)
    response = oip.ModelInferResponse.FromString(
        written_response(oip.ModelInferResponse(), {"y": batch[1:3]})
    )
    found = np.frombuffer(response.raw_output_contents[0], "<f4").reshape(2, 2, 3)
    assert np.array_equal(found, batch[1:3])


@pytest.mark.parametrize(
    ("dtype", "contents", "problem"),
    [
        ("uint8", {"uint_contents": [0, 256]}, "uint8 elements from 0 to 255, got 256"),
        ("int8", {"int_contents": [-129, 0]}, "int8 elements from -128 to 127, got -129"),
        ("int16", {"int_contents": [0, 40000]}, "to 32767, got 40000"),
        ("uint8", {"int_contents": [0, 1]}, "contents.uint_contents.*got.*contents.int_contents"),
        ("int64", {"int64_contents": [1]}, "2 elements in contents.int64_contents.*got 1"),
        ("float16", {"fp32_contents": [0, 1]}, "raw_input_contents, since FP16.*fp32_contents"),
        ("float16", {}, "raw_input_contents, since FP16.*got nothing"),
        ("float32", {"fp32_contents": [0, 1], "int_contents": [1]}, "fp32_contents.*int_contents"),
        ("bool", {"data": b"\x00\x02"}, "bytes 0 and 1"),
        ("float16", {"data": b"\x00\x02"}, "4 bytes.*got 2 bytes"),
    ],
)
def test_contents_that_are_not_what_they_say(
    dtype: str, contents: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidTensor, match=problem):
        read(dtype, [1, 2], **contents)


@pytest.mark.parametrize(
    "shape", [[], [2], [1, 0], [-1, 2], [1, 2, 1], [2**62, 2**62], [1, -(2**63)], [1] * 100]
)
def test_shapes_that_the_bytes_cannot_have(shape: list[int]) -> None:
    with pytest.raises(InvalidTensor):
        read("float32", shape, bytes(8))


def test_the_first_unknown_or_repeated_name_is_said() -> None:
    entry = ModelEntry(name="net", inputs=[TensorSpec(name="x", dtype="bool", shape=[-1])])
    request = oip.ModelInferRequest()
    for _ in range(2):
        request.inputs.add(name="x", datatype="BOOL", shape=[1]).contents.bool_contents.append(True)
    with pytest.raises(InvalidTensor, match="once, got it twice"):
        read_inputs(request, entry)
    request.inputs[0].name = "xs"
    with pytest.raises(InvalidTensor, match=r"'xs' of model 'net'.*one of x"):
        read_inputs(request, entry)
