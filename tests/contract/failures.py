"""What a failed call said: status, google.rpc details, trailers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

DETAILS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RequestInfo,
)


@dataclass(frozen=True)
class Failure:
    """`fields` are the paths of the violations, `info` is ErrorInfo's metadata."""

    code: grpc.StatusCode
    message: str
    reason: str
    info: dict[str, str]
    fields: list[str]
    descriptions: list[str]
    retry_delay_s: float | None
    resource: tuple[str, str] | None
    trailers: dict[str, Any]


def failure_of(error: grpc.RpcError) -> Failure:
    """The failure in an error that carries details."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None, f"no details: {error}"
    found: dict[type[Message], Any] = {}
    for packed in status.details:
        for kind in DETAILS:
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind()
                packed.Unpack(found[kind])
    info = found[error_details_pb2.ErrorInfo]
    assert info.domain == "velatura"
    trailers = dict(error.trailing_metadata())  # type: ignore[attr-defined]
    request_id = found[error_details_pb2.RequestInfo].request_id
    assert request_id == info.metadata["request_id"] == trailers["x-request-id"]
    bad = found.get(error_details_pb2.BadRequest, error_details_pb2.BadRequest())
    retry = found.get(error_details_pb2.RetryInfo)
    resource = found.get(error_details_pb2.ResourceInfo)
    return Failure(
        code=error.code(),  # type: ignore[attr-defined]
        message=status.message,
        reason=info.reason,
        info=dict(info.metadata),
        fields=[each.field for each in bad.field_violations],
        descriptions=[each.description for each in bad.field_violations],
        retry_delay_s=None if retry is None else retry.retry_delay.ToTimedelta().total_seconds(),
        resource=None if resource is None else (resource.resource_type, resource.resource_name),
        trailers=trailers,
    )


def failing(call: Callable[..., Any], request: Message, **options: Any) -> Failure:
    """The failure of a call that has to fail, with details."""

    def answer() -> object:
        result = call(request, **options)
        return result if isinstance(result, Message) else list(result)

    with pytest.raises(grpc.RpcError) as raised:
        answer()
    return failure_of(raised.value)
