"""GRPCInferenceService: every network of the bundle on raw tensors, for KServe's and Triton's
clients.
"""

# ruff: noqa: ARG002, N802 - names and parameters are gRPC's

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import grpc

from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc
from velatura.server import __version__
from velatura.server.engine.errors import InvalidTensor, ModelNotFound, listing
from velatura.server.pipelines.errors import InvalidRequest
from velatura.server.rpc.backend import Backend
from velatura.server.rpc.call import current_call
from velatura.server.rpc.inference_tensors import (
    DATATYPES,
    SHARED_MEMORY,
    read_inputs,
    typed_elements,
    written_response,
)
from velatura.server.rpc.lifecycle import Lifecycle, State
from velatura.v1.bundle_pb2 import ModelEntry, TensorSpec

Context = grpc.aio.ServicerContext[Any, Any]
TensorMetadata = oip.ModelMetadataResponse.TensorMetadata

# What Triton calls ONNX graphs on onnxruntime; clients look for it.
PLATFORM = "onnxruntime_onnx"
TIMEOUT = "timeout"
# More typed elements than this take milliseconds to read: on a thread, so that the loop answers.
READ_ON_THREAD_ELEMENTS = 1 << 16


class InferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Hands tensors to the engine, where they share batches with everybody else's."""

    def __init__(self, backend: Backend, lifecycle: Lifecycle) -> None:
        self._backend = backend
        self._lifecycle = lifecycle

    async def ServerLive(
        self, request: oip.ServerLiveRequest, context: Context
    ) -> oip.ServerLiveResponse:
        """The process answers."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: oip.ServerReadyRequest, context: Context
    ) -> oip.ServerReadyResponse:
        """Every network takes requests."""
        names = [entry.name for entry in self._backend.bundle.manifest.models]
        return oip.ServerReadyResponse(ready=all(self._takes_requests(name) for name in names))

    async def ModelReady(
        self, request: oip.ModelReadyRequest, context: Context
    ) -> oip.ModelReadyResponse:
        """One network takes requests; false for one that is not there, as Triton answers."""
        try:
            entry = self._entry(request.name, request.version)
        except ModelNotFound:
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=self._takes_requests(entry.name))

    async def ServerMetadata(
        self, request: oip.ServerMetadataRequest, context: Context
    ) -> oip.ServerMetadataResponse:
        """Name and version; none of Triton's extensions."""
        return oip.ServerMetadataResponse(name="velatura", version=__version__)

    async def ModelMetadata(
        self, request: oip.ModelMetadataRequest, context: Context
    ) -> oip.ModelMetadataResponse:
        """The tensors of one network."""
        entry = self._entry(request.name, request.version)
        return oip.ModelMetadataResponse(
            name=entry.name,
            versions=[entry.version] if entry.version else [],
            platform=PLATFORM,
            inputs=_described(entry.inputs),
            outputs=_described(entry.outputs),
        )

    async def ModelInfer(  # type: ignore[override]  # see `interceptors`: bytes go out as they are
        self, request: oip.ModelInferRequest, context: Context
    ) -> bytes:
        """Run one network on tensors that lead with the batch axis; a serialised
        ModelInferResponse."""
        backend = self._backend
        entry = self._entry(request.model_name, request.model_version)
        names = wanted_outputs(request, entry)
        deadline = deadline_of(request)
        try:
            raw = request.raw_input_contents
            if not raw and typed_elements(request) > READ_ON_THREAD_ELEMENTS:
                inputs = await backend.workers.run(read_inputs, request, entry)
            else:
                inputs = read_inputs(request, entry)
            outputs = await backend.engine.run(entry.name, inputs, deadline=deadline)
        except InvalidTensor as error:
            raise InvalidRequest.of(
                _field_of(request, error.input), str(error), "INVALID_TENSOR"
            ) from None
        head = oip.ModelInferResponse(
            model_name=entry.name, model_version=entry.version, id=request.id
        )
        return written_response(head, {name: outputs[name] for name in names})

    def _entry(self, name: str, version: str) -> ModelEntry:
        """The network of a name, and of a version unless that is ""; raises `ModelNotFound`."""
        entry = self._backend.bundle.model(name)
        if version not in ("", entry.version):
            served = f"{name}, version {entry.version}" if entry.version else name
            raise ModelNotFound(f"{name}, version {version}", [served])
        return entry

    def _takes_requests(self, name: str) -> bool:
        serving = self._lifecycle.state is State.SERVING
        return serving and self._backend.engine.ready(name)


def wanted_outputs(request: oip.ModelInferRequest, entry: ModelEntry) -> list[str]:
    """Names of the outputs that a request asks for, in its order, all where it names none; raises
    `InvalidRequest`."""
    known = [spec.name for spec in entry.outputs]
    wanted = [output.name for output in request.outputs]
    for index, output in enumerate(request.outputs):
        problem = ""
        if output.name not in known:
            problem = f"expected one of {listing(known)}, got an unknown name"
        elif output.name in wanted[:index]:
            problem = "expected every output once, got it twice"
        elif SHARED_MEMORY in output.parameters or "classification" in output.parameters:
            asked = listing(sorted(output.parameters))
            problem = f"expected no parameters, got {asked}, which this server does not have"
        if problem:
            named = f"output {output.name!r} of model {entry.name!r}"
            raise InvalidRequest.of(f"outputs[{index}]", f"{named}: {problem}.", "INVALID_TENSOR")
    return wanted or known


def deadline_of(request: oip.ModelInferRequest) -> float:
    """The call's deadline, or the earlier one that the parameter "timeout" (microseconds, 0 for
    none) sets, on time.monotonic()'s clock; raises `InvalidRequest`."""
    deadline = current_call.get().deadline
    if TIMEOUT not in request.parameters:
        return deadline
    parameter = request.parameters[TIMEOUT]
    kind = parameter.WhichOneof("parameter_choice")
    microseconds = parameter.uint64_param if kind == "uint64_param" else parameter.int64_param
    if kind not in ("int64_param", "uint64_param") or microseconds < 0:
        raise InvalidRequest.of(
            "parameters[timeout]",
            f"expected microseconds as an integer of at least 0, got {str(parameter).strip()!r}.",
        )
    if microseconds == 0:
        return deadline
    return min(deadline, time.monotonic() + microseconds / 1e6)


def _described(specs: Iterable[TensorSpec]) -> list[TensorMetadata]:
    return [
        TensorMetadata(name=spec.name, datatype=DATATYPES[spec.dtype], shape=spec.shape)
        for spec in specs
    ]


def _field_of(request: oip.ModelInferRequest, name: str) -> str:
    """Path of the last input of that name, "inputs" where there is none."""
    found = [index for index, tensor in enumerate(request.inputs) if tensor.name == name]
    return f"inputs[{found[-1]}]" if found else "inputs"
