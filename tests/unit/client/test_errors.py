"""Statuses and their google.rpc details become typed errors."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from velatura import client
from velatura.client.errors import error_of


def packed(*details: Message) -> tuple[tuple[str, str | bytes], ...]:
    status = status_pb2.Status(code=3, message="ignored")
    for detail in details:
        box = any_pb2.Any()
        box.Pack(detail)
        status.details.append(box)
    return (("grpc-status-details-bin", status.SerializeToString()),)


@pytest.mark.parametrize(
    ("code", "kind", "builtin"),
    [
        ("INVALID_ARGUMENT", client.InvalidArgument, ValueError),
        ("NOT_FOUND", client.NotFound, LookupError),
        ("FAILED_PRECONDITION", client.FailedPrecondition, Exception),
        ("RESOURCE_EXHAUSTED", client.ResourceExhausted, Exception),
        ("DEADLINE_EXCEEDED", client.DeadlineExceeded, TimeoutError),
        ("UNAVAILABLE", client.Unavailable, ConnectionError),
        ("CANCELLED", client.Cancelled, Exception),
        ("UNAUTHENTICATED", client.Unauthenticated, Exception),
        ("PERMISSION_DENIED", client.PermissionDenied, Exception),
        ("UNIMPLEMENTED", client.Unimplemented, Exception),
        ("INTERNAL", client.Internal, Exception),
        ("DATA_LOSS", client.VelaturaError, Exception),
    ],
)
def test_each_status_has_its_class(
    code: str, kind: type[client.VelaturaError], builtin: type[Exception]
) -> None:
    error = error_of(grpc.StatusCode[code], "what happened", None)
    assert type(error) is kind
    assert isinstance(error, builtin)
    assert error.status is grpc.StatusCode[code]
    assert str(error) == "what happened"


def test_details_become_attributes() -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="edits[0].direction.name", description="unknown 'smirk'")
    info = error_details_pb2.ErrorInfo(reason="UNKNOWN_DIRECTION", metadata={"known": "smile"})
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(2500)
    request = error_details_pb2.RequestInfo(request_id="r-17")
    error = error_of(
        grpc.StatusCode.INVALID_ARGUMENT, "no such direction", packed(bad, info, retry, request)
    )
    assert error.reason == "UNKNOWN_DIRECTION"
    assert error.details == {"known": "smile"}
    assert error.violations == (client.Violation("edits[0].direction.name", "unknown 'smirk'"),)
    assert error.retry_after == 2.5
    assert error.request_id == "r-17"
    text = str(error)
    assert "no such direction; edits[0].direction.name: unknown 'smirk'" in text
    assert "retry after 2.5 s" in text


def test_pushback_and_request_id_are_also_read_from_plain_trailers() -> None:
    trailers = (("grpc-retry-pushback-ms", "150"), ("x-request-id", "abc"))
    error = error_of(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", trailers)
    assert (error.retry_after, error.request_id) == (0.15, "abc")


def test_the_field_of_an_unknown_name_is_a_violation_too() -> None:
    info = error_details_pb2.ErrorInfo(
        reason="UNKNOWN_STYLE", metadata={"field": "styles[0].preset"}
    )
    error = error_of(grpc.StatusCode.NOT_FOUND, "no style 'x'", packed(info))
    assert error.violations == (client.Violation("styles[0].preset", "no style 'x'"),)
    assert str(error) == "no style 'x'"  # said once


@pytest.mark.parametrize("pushback", ["-1", "soon"])
def test_a_pushback_that_is_no_time_is_no_time(pushback: str) -> None:
    trailers = (("grpc-retry-pushback-ms", pushback),)
    assert error_of(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", trailers).retry_after is None


def test_broken_details_do_not_hide_the_status() -> None:
    error = error_of(
        grpc.StatusCode.NOT_FOUND, "gone", (("grpc-status-details-bin", b"\xff\xff\xff"),)
    )
    assert isinstance(error, client.NotFound)
    assert str(error) == "gone"
