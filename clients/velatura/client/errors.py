"""Errors of the client: one class for each status that a caller may want to catch by name.

A server says what is wrong in `google.rpc` details (which fields, when to come back, which
request); they become attributes here. What the client itself finds wrong with its arguments before
sending anything is raised in the same shape, as `InvalidArgument`.
"""

# Named as gRPC names its statuses.
# ruff: noqa: N818

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Violation:
    """One field of the request and what is wrong with it."""

    field: str
    description: str


class VelaturaError(Exception):
    """A call did not succeed.

    `status` is the gRPC status, `reason` the server's constant for the cause (such as
    "IMAGE_TOO_LARGE"; empty where it gave none), `violations` the fields at fault, `retry_after`
    the seconds after which the server asks to be called again, `request_id` what to look for in its
    logs.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        details: Mapping[str, str] | None = None,
        violations: Iterable[Violation] = (),
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = code or self.code
        self.reason = reason
        self.details = dict(details or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        named = [v for v in self.violations if v.description and v.description not in self.message]
        text = "; ".join([self.message, *(f"{v.field}: {v.description}" for v in named)])
        if self.retry_after is not None:
            text += f" (retry after {self.retry_after:.2g} s)"
        return text


class InvalidArgument(VelaturaError, ValueError):
    """A field of the request is wrong; `violations` names it."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(VelaturaError, LookupError):
    """No such direction, style, model, generator or region class."""

    code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(VelaturaError):
    """The request cannot be served in this state, such as a latent token of another model."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(VelaturaError):
    """The server sheds load, or a message is over the size limit."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceeded(VelaturaError, TimeoutError):
    """The answer did not arrive within `timeout`."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unavailable(VelaturaError, ConnectionError):
    """The server cannot be reached, or is shutting down."""

    code = grpc.StatusCode.UNAVAILABLE


class Cancelled(VelaturaError):
    """The call was cancelled."""

    code = grpc.StatusCode.CANCELLED


class Unauthenticated(VelaturaError):
    """The API key is missing or unknown."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(VelaturaError):
    """The API key does not allow this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unimplemented(VelaturaError):
    """The server does not know this call; it may be older than the client."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(VelaturaError):
    """A defect in the server."""

    code = grpc.StatusCode.INTERNAL


_BY_CODE: Mapping[grpc.StatusCode, type[VelaturaError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        FailedPrecondition,
        ResourceExhausted,
        DeadlineExceeded,
        Unavailable,
        Cancelled,
        Unauthenticated,
        PermissionDenied,
        Unimplemented,
        Internal,
    )
}


def invalid(field: str, description: str) -> InvalidArgument:
    """The error for an argument that is wrong before anything is sent."""
    return InvalidArgument(
        f"{field}: {description}",
        reason="INVALID_REQUEST",
        violations=[Violation(field, description)],
    )


def error_of(code: grpc.StatusCode, message: str, trailers: Metadata | None) -> VelaturaError:
    """The typed error for a status, its message and the call's trailing metadata."""
    metadata = dict(trailers or ())
    found = _decode_details(metadata.get(_DETAILS_KEY))
    pushback = str(metadata.get(_PUSHBACK_KEY, ""))
    # A negative pushback means "do not retry", which is not a time.
    if found.retry_after is None and pushback.isdecimal():
        found.retry_after = int(pushback) / 1000
    if not found.violations and "field" in found.details:
        # NOT_FOUND has no list of violations, but names its field in ErrorInfo.
        found.violations.append(Violation(found.details["field"], message))
    request_id = found.request_id or metadata.get(_REQUEST_ID_KEY, "")
    kind = _BY_CODE.get(code, VelaturaError)
    return kind(
        message or code.name,
        code=code,
        reason=found.reason,
        details=found.details,
        violations=found.violations,
        retry_after=found.retry_after,
        request_id=request_id.decode() if isinstance(request_id, bytes) else request_id,
    )


class _Details:
    """What the `google.rpc` messages in the trailers said."""

    def __init__(self) -> None:
        self.reason = ""
        self.details: dict[str, str] = {}
        self.violations: list[Violation] = []
        self.retry_after: float | None = None
        self.request_id = ""


def _decode_details(encoded: str | bytes | None) -> _Details:
    found = _Details()
    if not isinstance(encoded, bytes):
        return found
    try:
        status = status_pb2.Status.FromString(encoded)
    except DecodeError:  # a proxy's, perhaps; the status alone still says what matters
        return found
    for packed in status.details:
        bad = error_details_pb2.BadRequest()
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        request = error_details_pb2.RequestInfo()
        if packed.Unpack(bad):
            found.violations += [Violation(v.field, v.description) for v in bad.field_violations]
        elif packed.Unpack(info):
            found.reason, found.details = info.reason, dict(info.metadata)
        elif packed.Unpack(retry):
            found.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        elif packed.Unpack(request):
            found.request_id = request.request_id
    return found
