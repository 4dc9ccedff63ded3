"""Tensors between the Open Inference Protocol's messages and numpy: datatypes, raw and typed
contents.

Whether names, shapes and values suit the network is the engine's check; here the bytes and lists
have to be what their message says they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from velatura.server.engine.errors import InvalidTensor, listing
from velatura.server.engine.validation import describe
from velatura.server.pipelines.errors import InvalidRequest
from velatura.v1.bundle_pb2 import ModelEntry, TensorSpec

InputTensor: TypeAlias = ModelInferRequest.InferInputTensor

# The manifest's names (numpy's) and the protocol's.
DATATYPES: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}

# The same by numpy's dtype, whose name takes numpy longer to make up than all the rest.
_DATATYPE_OF = {np.dtype(name): datatype for name, datatype in DATATYPES.items()}

# The list of typed contents that an element type goes into, and what its elements are there.
# The protocol has none for FP16.
_CONTENTS: Mapping[str, tuple[str, str]] = {
    "bool": ("bool_contents", "bool"),
    "uint8": ("uint_contents", "uint32"),
    "uint16": ("uint_contents", "uint32"),
    "uint32": ("uint_contents", "uint32"),
    "uint64": ("uint64_contents", "uint64"),
    "int8": ("int_contents", "int32"),
    "int16": ("int_contents", "int32"),
    "int32": ("int_contents", "int32"),
    "int64": ("int64_contents", "int64"),
    "float32": ("fp32_contents", "float32"),
    "float64": ("fp64_contents", "float64"),
}

SHARED_MEMORY = "shared_memory_region"


def typed_elements(request: ModelInferRequest) -> int:
    """Elements in all typed contents of a request: turning each into a number takes time."""
    lists = (tensor.contents.ListFields() for tensor in request.inputs)
    return sum(len(values) for filled in lists for _, values in filled)


def read_inputs(request: ModelInferRequest, entry: ModelEntry) -> dict[str, NDArray[Any]]:
    """The inputs of a request for network `entry`, by name, with the shapes that the request says.

    Raw contents become read-only views, typed ones new arrays. Raises InvalidTensor, or
    InvalidRequest where raw_input_contents does not go with the inputs.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest.of(
            "raw_input_contents",
            f"model {entry.name!r} was given {len(raw)} entries for {len(request.inputs)} inputs. "
            "Send one entry for each input, in the inputs' order, or none at all.",
            "INVALID_TENSOR",
        )
    specs = {spec.name: spec for spec in entry.inputs}
    arrays: dict[str, NDArray[Any]] = {}
    for index, tensor in enumerate(request.inputs):
        spec = specs.get(tensor.name)
        if spec is None:
            known = f"one of {listing(specs)}"
            raise InvalidTensor(entry.name, tensor.name, known, "an unknown name")
        if tensor.name in arrays:
            raise InvalidTensor(entry.name, tensor.name, "every input once", "it twice")
        data = raw[index] if raw else None
        try:
            arrays[tensor.name] = _read(tensor, spec, data)
        except _Mismatch as error:
            raise InvalidTensor(entry.name, tensor.name, error.expected, error.got) from None
    return arrays


def written_response(head: ModelInferResponse, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """`head` with `arrays` as its outputs, serialised: raw bytes, what every client reads.

    A message would copy the elements on their way into it and out of it again. Fields of
    protobuf may follow each other in any order, so the raw contents are put behind the rest, from
    the arrays' own memory, in a single copy.
    """
    contents: list[bytes | NDArray[np.uint8]] = []
    for name, array in arrays.items():
        head.outputs.add(name=name, datatype=_DATATYPE_OF[array.dtype], shape=array.shape)
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        contents += (_RAW_TAG, _varint(little.nbytes), little.reshape(-1).view(np.uint8))
    return b"".join((head.SerializeToString(), *contents))  # type: ignore[arg-type]  # buffers


def _varint(number: int) -> bytes:
    """Seven bits a byte, the least first, the highest bit set on all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


# Key of a length-delimited field.
_RAW_TAG = _varint(ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | 2)


class _Mismatch(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with one input, without its name."""

    def __init__(self, expected: str, got: str) -> None:
        self.expected = expected
        self.got = got


def _read(tensor: InputTensor, spec: TensorSpec, data: bytes | None) -> NDArray[Any]:
    shape = list(tensor.shape)
    if tensor.datatype != DATATYPES[spec.dtype]:
        got = f"datatype {tensor.datatype!r}"
        raise _Mismatch(f"datatype {DATATYPES[spec.dtype]!r} ({describe(spec)})", got)
    if len(shape) != len(spec.shape) or min(shape) < 1:
        raise _Mismatch(describe(spec), f"{spec.dtype} {shape}")
    if SHARED_MEMORY in tensor.parameters:
        raise _Mismatch(
            "its elements in the message",
            "the name of a shared memory region, which this server does not read",
        )
    filled = {field.name: values for field, values in tensor.contents.ListFields()}
    if data is None:
        return _from_contents(filled, spec.dtype, shape)
    if filled:
        got = f"elements in raw_input_contents and in contents.{listing(filled)}"
        raise _Mismatch("its elements in one place", got)
    return _from_raw(data, spec.dtype, shape)


def _from_raw(data: bytes, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    kind = np.dtype(dtype).newbyteorder("<")
    wanted = math.prod(shape) * kind.itemsize
    if len(data) != wanted:
        raise _Mismatch(
            f"{wanted:,} bytes of raw_input_contents for {dtype} {list(shape)}",
            f"{len(data):,} bytes",
        )
    if kind.kind == "b" and data.strip(b"\x00\x01"):
        raise _Mismatch("bytes 0 and 1 alone", "other bytes")
    # A view: no copy on little-endian machines.
    return np.frombuffer(data, kind).astype(dtype, copy=False).reshape(shape)


def _from_contents(filled: Mapping[str, Any], dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    if dtype not in _CONTENTS:
        raise _Mismatch(
            f"its elements in raw_input_contents, since {DATATYPES[dtype]} has no typed contents",
            f"contents.{listing(filled)}" if filled else "nothing",
        )
    field, wide = _CONTENTS[dtype]
    count = math.prod(shape)
    expected = f"{count:,} elements in contents.{field} for {dtype} {list(shape)}"
    if list(filled) != [field]:
        got = f"elements in contents.{listing(filled)}" if filled else "no contents"
        raise _Mismatch(expected, got)
    values = filled[field]
    if len(values) != count:
        raise _Mismatch(expected, f"{len(values):,}")
    array = np.fromiter(values, wide, count)
    if wide != dtype:
        limits = np.iinfo(dtype)
        least, most = int(array.min()), int(array.max())
        if least < limits.min or most > limits.max:
            outside = least if least < limits.min else most
            raise _Mismatch(f"{dtype} elements from {limits.min} to {limits.max}", str(outside))
    return array.astype(dtype, copy=False).reshape(shape)
