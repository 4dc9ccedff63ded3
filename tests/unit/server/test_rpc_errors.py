"""Errors as statuses."""

from __future__ import annotations

import urllib.parse
from base64 import b64encode

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    Draining,
    FailureKind,
    InvalidTensor,
    ModelNotFound,
    QueueFull,
    Refusal,
    UnknownName,
)
from velatura.server.imaging.errors import ImageError, Reason, RegionError
from velatura.server.pipelines.errors import (
    InvalidRequest,
    TokenOfAnotherModel,
    UnknownThing,
    Unsupported,
    Violation,
)
from velatura.server.rpc.errors import (
    DETAILS,
    PUSHBACK,
    Unauthenticated,
    failure_of,
    internal,
    message_of,
    trailers,
    with_request,
)

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ImageError(Reason.TRUNCATED, "image", "p.", "a."), Code.INVALID_ARGUMENT, "TRUNCATED"),
        (RegionError(Reason.UNKNOWN_CLASS, "r", "p.", "a."), Code.NOT_FOUND, "UNKNOWN_CLASS"),
        (InvalidRequest.of("f", "bad."), Code.INVALID_ARGUMENT, "INVALID_FIELD"),
        (UnknownThing("style model", "x", ["a"], "f"), Code.NOT_FOUND, "UNKNOWN_STYLE_MODEL"),
        (UnknownName("generator", "x", ["a"]), Code.NOT_FOUND, "UNKNOWN_GENERATOR"),
        (ModelNotFound("x", ["a"]), Code.NOT_FOUND, "UNKNOWN_MODEL"),
        (Unsupported("f", "no.", "do."), Code.FAILED_PRECONDITION, "UNSUPPORTED"),
        (TokenOfAnotherModel("f", "a", "b"), Code.FAILED_PRECONDITION, "TOKEN_OF_ANOTHER_MODEL"),
        (QueueFull("m", 0.25, Refusal.QUEUE_ITEMS, "full"), Code.RESOURCE_EXHAUSTED, "OVERLOADED"),
        (DeadlineExceeded("m"), Code.DEADLINE_EXCEEDED, "DEADLINE"),
        (TimeoutError(), Code.DEADLINE_EXCEEDED, "DEADLINE"),
        (Draining(), Code.UNAVAILABLE, "DRAINING"),
        (
            DeviceFailed("m", FailureKind.DEVICE_LOST, "/secret/path"),
            Code.UNAVAILABLE, "DEVICE_FAILED",
        ),
        (DeviceFailed("m", FailureKind.NON_FINITE, "nan"), Code.INVALID_ARGUMENT, "NOT_FINITE"),
        (Unauthenticated("who"), Code.UNAUTHENTICATED, "API_KEY"),
    ],
)  # fmt: skip
def test_each_error_has_its_status(error: Exception, code: grpc.StatusCode, reason: str) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert (failure.code, failure.reason) == (code, reason)
    assert failure.message
    assert "/secret/path" not in failure.message


@pytest.mark.parametrize("error", [KeyError("x"), InvalidTensor("m", "z", "[1]", "[2]")])
def test_what_nobody_foresaw_is_internal(error: Exception) -> None:
    assert failure_of(error) is None
    assert internal("id").code is Code.INTERNAL


def test_trailers_carry_the_request_and_when_to_retry() -> None:
    failure = failure_of(QueueFull("m", 0.25, Refusal.DEADLINE, "late"))
    assert failure is not None
    metadata = dict(trailers(with_request(failure, "id-1"), "id-1"))
    assert metadata["x-request-id"] == "id-1"
    assert metadata[PUSHBACK] == "250"
    status = status_pb2.Status.FromString(metadata[DETAILS])  # type: ignore[arg-type]
    assert status.code == Code.RESOURCE_EXHAUSTED.value[0]
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert dict(info.metadata) == {"model": "m", "request_id": "id-1"}
    assert retry.retry_delay.ToMilliseconds() == 250


@pytest.mark.parametrize(
    "error",
    [
        UnknownThing("direction", "x" * 5000, [f"direction-{i}" for i in range(5000)], "f" * 500),
        InvalidRequest(Violation(f"edits[{i}]." + "f" * 300, "d" * 900) for i in range(11)),
        ImageError(Reason.CORRUPT, "f" * 9000, "p" * 9000, "a" * 9000, limit="l" * 9000),
    ],
)
def test_no_failure_bursts_a_clients_metadata(error: Exception) -> None:
    failure = failure_of(error)
    assert failure is not None
    metadata = trailers(with_request(failure, "i" * 128), "i" * 128)
    size = len(urllib.parse.quote(message_of(failure), safe=" /:;,.'"))
    for key, value in metadata:
        size += len(key) + (len(value) if isinstance(value, str) else len(b64encode(value)))
    assert size < 8 * 1024 - 500, "gRPC's own trailers need room as well"
