"""The raw tensors' service on an engine of plain functions: states, deadlines, cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc
from velatura.server.engine.errors import DeviceFailed, FailureKind, InvalidTensor, ModelNotFound
from velatura.server.observability.metrics import Metrics
from velatura.server.pipelines.workers import Workers
from velatura.server.rpc.auth import KeyRing
from velatura.server.rpc.backend import Backend
from velatura.server.rpc.inference import InferenceServicer
from velatura.server.rpc.interceptors import CallInterceptor
from velatura.server.rpc.lifecycle import Lifecycle, State
from velatura.server.rpc.observation import Observer
from velatura.v1.bundle_pb2 import BundleManifest, ModelEntry, TensorSpec

from .fakes import FakeEngine

Code = grpc.StatusCode
SPECS = {
    "inputs": [TensorSpec(name="x", dtype="float32", shape=[-1, 2])],
    "outputs": [TensorSpec(name="y", dtype="float32", shape=[-1, 2])],
}
ENTRIES = {name: ModelEntry(name=name, version="1", **SPECS) for name in ("double", "other")}  # type: ignore[arg-type]


class OneBundle:
    manifest = BundleManifest(models=list(ENTRIES.values()))

    def model(self, name: str) -> ModelEntry:
        if name not in ENTRIES:
            raise ModelNotFound(name, ENTRIES)
        return ENTRIES[name]


class Scene:
    def __init__(self, workers: Workers) -> None:
        self.engine = FakeEngine({"double": lambda inputs: {"y": inputs["x"] * 2}})
        self.engine.bundle = OneBundle()  # type: ignore[assignment]
        metrics, self.lifecycle = Metrics(), Lifecycle(4)
        self.lifecycle.state = State.SERVING
        backend = Backend(self.engine, workers, metrics)  # type: ignore[arg-type]
        interceptor = CallInterceptor(self.lifecycle, Observer(metrics), KeyRing(), 30, 1 << 24)
        self.server = grpc.aio.server(interceptors=[interceptor])
        servicer = InferenceServicer(backend, self.lifecycle)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")


@asynccontextmanager
async def scene(workers: Workers) -> AsyncIterator[tuple[Scene, Any]]:
    made = Scene(workers)
    await made.server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{made.port}") as channel:
        yield made, open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    await made.server.stop(0)


def request(**fields: Any) -> oip.ModelInferRequest:
    made = oip.ModelInferRequest(model_name="double", id="seven", **fields)
    made.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    made.raw_input_contents.append(np.array([1, 2], "<f4").tobytes())
    return made


async def ready(stub: Any, *names: str) -> list[bool]:
    """Whether the server and each of the models is ready."""
    server = await stub.ServerReady(oip.ServerReadyRequest())
    models = [await stub.ModelReady(oip.ModelReadyRequest(name=name)) for name in names]
    return [server.ready, *(model.ready for model in models)]


async def test_an_answer(workers: Workers) -> None:
    async with scene(workers) as (made, stub):
        answer = await stub.ModelInfer(request())
        assert (answer.id, answer.model_name, answer.model_version) == ("seven", "double", "1")
        assert list(answer.outputs[0].shape) == [1, 2]
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [2, 4]
        assert not answer.outputs[0].HasField("contents")
        assert not made.engine.runs[0][1]["x"].flags.owndata, "a view of the request's bytes"


@pytest.mark.parametrize("state", [State.STARTING, State.DRAINING])
async def test_outside_serving_it_lives_and_is_not_ready(workers: Workers, state: State) -> None:
    async with scene(workers) as (made, stub):
        assert await ready(stub, "double") == [True, True]
        made.lifecycle.state = state
        assert (await stub.ServerLive(oip.ServerLiveRequest())).live
        assert await ready(stub, "double") == [False, False]
        assert (await stub.ModelMetadata(oip.ModelMetadataRequest(name="double"))).name == "double"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ModelInfer(request())
        assert raised.value.code() is Code.UNAVAILABLE


async def test_a_lost_network_is_not_ready_and_nor_is_the_server(workers: Workers) -> None:
    async with scene(workers) as (made, stub):
        made.engine.not_ready = {"other"}
        assert await ready(stub, "double", "other", "none") == [False, True, False, False]


async def test_a_failing_device_is_unavailable(workers: Workers) -> None:
    def lost(inputs: Any) -> Any:
        raise DeviceFailed("double", FailureKind.DEVICE_LOST, "CUDA error")

    async with scene(workers) as (made, stub):
        made.engine.networks["double"] = lost
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ModelInfer(request())
        assert raised.value.code() is Code.UNAVAILABLE
        assert "'double'" in (raised.value.details() or "")


async def test_an_input_that_the_engine_refuses_is_the_callers_fault(workers: Workers) -> None:
    def refuse(inputs: Any) -> Any:
        raise InvalidTensor("double", "x", "at most 2 items in a request", "3")

    async with scene(workers) as (made, stub):
        made.engine.networks["double"] = refuse
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ModelInfer(request())
        assert raised.value.code() is Code.INVALID_ARGUMENT
        assert "inputs[0]: input 'x' of model 'double'" in (raised.value.details() or "")


async def test_the_calls_deadline_and_the_timeout_parameter_reach_the_engine(
    workers: Workers,
) -> None:
    async with scene(workers) as (made, stub):
        for microseconds in (None, 0, 2_000_000, 90_000_000):
            asked = request()
            if microseconds is not None:
                asked.parameters["timeout"].int64_param = microseconds
            await stub.ModelInfer(asked, timeout=20)
        left = [(deadline or 0) - time.monotonic() for deadline in made.engine.deadlines]
        assert [round(each) for each in left] == [20, 20, 2, 20]
        for spoil in ({"int64_param": -1}, {"string_param": "1s"}):
            asked = request(parameters={"timeout": oip.InferParameter(**spoil)})  # type: ignore[arg-type]
            with pytest.raises(grpc.aio.AioRpcError, match="microseconds") as raised:
                await stub.ModelInfer(asked)
            assert raised.value.code() is Code.INVALID_ARGUMENT


async def test_a_cancelled_call_is_cancelled_in_the_engine(workers: Workers) -> None:
    async with scene(workers) as (made, stub):
        made.engine.delays["double"] = 30
        call = stub.ModelInfer(request())
        async with asyncio.timeout(10):
            while not made.engine.runs:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            call.cancel()
            assert await made.lifecycle.idle(5)
        assert made.engine.cancelled == ["double"]
