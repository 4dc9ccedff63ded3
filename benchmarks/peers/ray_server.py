"""Ray Serve's side: a deployment with `serve.batch` around an onnxruntime session, behind Ray's own
gRPC proxy, which is given the Open Inference Protocol's service. Run by the interpreter of its own
environment: `ray_server.py GRAPH NAME GRPC HTTP`, the last two being ports.
"""

# ruff: noqa: N802 - the methods' names are gRPC's
# mypy: disable-error-code="untyped-decorator,attr-defined"
# (Ray is not in the environment of the checks.)

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import onnxruntime as ort
import ray
from numpy.typing import NDArray
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions

from inference import open_inference_pb2 as oip

INPUT, OUTPUT = "w_plus", "image"
MAX_BATCH = 8
BATCH_WAIT_S = 0.01  # Ray's default
SERVICER = "inference.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
class Generator:
    """w_plus float32 [1, layers, width] → image float32 [1, 3, height, width], by ModelInfer."""

    def __init__(self, graph: str, name: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._name = name

    async def ModelReady(self, request: oip.ModelReadyRequest) -> oip.ModelReadyResponse:
        """Whether this is the network."""
        return oip.ModelReadyResponse(ready=request.name == self._name)

    async def ModelInfer(self, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
        """One request."""
        latents = np.frombuffer(request.raw_input_contents[0], "<f4")
        image = await self._run(latents.reshape(list(request.inputs[0].shape)))
        response = oip.ModelInferResponse(model_name=self._name)
        response.outputs.add(name=OUTPUT, datatype="FP32", shape=image.shape)
        response.raw_output_contents.append(image.tobytes())
        return response

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _run(self, latents: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        (images,) = self._session.run([OUTPUT], {INPUT: np.concatenate(latents)})
        return [images[index : index + 1] for index in range(len(latents))]


def main() -> None:
    """Serves until SIGTERM."""
    graph, name, grpc_port, http_port = sys.argv[1:]
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(
        http_options=HTTPOptions(port=int(http_port)),
        grpc_options=gRPCOptions(port=int(grpc_port), grpc_servicer_functions=[SERVICER]),
    )
    serve.run(Generator.bind(graph, name), route_prefix="/generator")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    # Before Ray starts threads, so that they inherit it and only main() takes the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
