"""A real server, and one request whose numbers overflow inside the network: it fails alone."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import numpy as np
import pytest

from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc

from ..running import RunningServer

MODEL, SHAPE = "avatar-synthesis", (1, 12, 128)
MATES, POISONED_AT = 7, 3
OVERFLOWS = 3e38


def request(value: float | None, seed: int = 0) -> oip.ModelInferRequest:
    """Latents of a seed, or all of one value."""
    latents = np.random.default_rng(seed).standard_normal(SHAPE).astype("<f4")
    if value is not None:
        latents[:] = value
    tensor = oip.ModelInferRequest.InferInputTensor(name="w_plus", datatype="FP32", shape=SHAPE)
    return oip.ModelInferRequest(
        model_name=MODEL, inputs=[tensor], raw_input_contents=[latents.tobytes()]
    )


@pytest.fixture
def gathering(start: Callable[..., RunningServer]) -> RunningServer:
    """A server that waits for company, so that the requests do share a batch."""
    return start("--max-queue-delay-ms", "400", "--max-batch-size", str(MATES + 1))


def test_a_poisoned_request_fails_alone(gathering: RunningServer) -> None:
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(gathering.channel())
    good = [request(None, seed) for seed in range(MATES)]
    alone = [stub.ModelInfer(each).raw_output_contents[0] for each in good]
    assert len(set(alone)) == MATES
    batches = gathering.total("velatura_batch_size_count", model=MODEL)

    together = [*good[:POISONED_AT], request(OVERFLOWS), *good[POISONED_AT:]]
    calls = [stub.ModelInfer.future(each) for each in together]
    poisoned = calls.pop(POISONED_AT)
    assert poisoned.exception().code() is grpc.StatusCode.INVALID_ARGUMENT  # it overflowed
    assert [call.result().raw_output_contents[0] for call in calls] == alone

    # It did share a batch, which was run again one by one.
    again = gathering.total("velatura_batch_closed_total", model=MODEL, reason="retry")
    assert again >= 2
    failures = gathering.total("velatura_model_failures_total", model=MODEL, reason="non_finite")
    assert failures == 2  # of the batch, and of the culprit by itself
    ran = gathering.total("velatura_batch_size_count", model=MODEL) - batches
    assert ran <= MATES + 1 + again

    # By itself it fails as well, and the network serves on.
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request(OVERFLOWS))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # it overflowed
    assert stub.ModelInfer(good[0]).raw_output_contents[0] == alone[0]
    assert gathering.total("velatura_model_ready", model=MODEL) == 1
    assert gathering.total("velatura_queue_depth") == 0
