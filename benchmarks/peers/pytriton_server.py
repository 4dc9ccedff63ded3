"""PyTriton's side: Triton's server with a Python function around an onnxruntime session. Run by the
interpreter of its own environment: `pytriton_server.py GRAPH NAME GRPC HTTP METRICS WORKSPACE`, the
three in the middle being ports.
"""

# mypy: disable-error-code="untyped-decorator"
# (PyTriton is not in the environment of the checks.)

from __future__ import annotations

import os
import sys

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

INPUT, OUTPUT = "w_plus", "image"
MAX_BATCH = 8


def main() -> None:
    """Serves until SIGTERM."""
    graph, name, grpc_port, http_port, metrics_port, workspace = sys.argv[1:]
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    @batch
    def infer(**inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [session.run([OUTPUT], {INPUT: inputs[INPUT]})[0]]

    config = TritonConfig(
        grpc_port=int(grpc_port), http_port=int(http_port), metrics_port=int(metrics_port),
        grpc_address="127.0.0.1", http_address="127.0.0.1",
    )  # fmt: skip
    given, made = session.get_inputs()[0], session.get_outputs()[0]
    with Triton(config=config, workspace=workspace) as triton:
        triton.bind(
            model_name=name,
            infer_func=infer,
            inputs=[Tensor(name=INPUT, dtype=np.float32, shape=tuple(given.shape[1:]))],
            outputs=[Tensor(name=OUTPUT, dtype=np.float32, shape=tuple(made.shape[1:]))],
            # As its documentation has it: the default batcher dispatches as soon as it can.
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher()),
            strict=True,
        )
        triton.serve()


if __name__ == "__main__":
    main()
