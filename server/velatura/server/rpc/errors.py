"""Every error as one gRPC status with google.rpc details that a program can act on.

`ErrorInfo.reason` is stable and machine-readable, its domain is "velatura", and its metadata always
has the request's id. What is not known here is a defect of the server: INTERNAL, with nothing but
the id.
"""

# ruff: noqa: N818 - the names say what happened, as gRPC's statuses do

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    Draining,
    FailureKind,
    ModelNotFound,
    QueueFull,
    UnknownName,
)
from velatura.server.imaging.errors import ImageError, Reason
from velatura.server.pipelines.errors import (
    InvalidRequest,
    TokenOfAnotherModel,
    UnknownThing,
    Unsupported,
    Violation,
)

DOMAIN = "velatura"
REQUEST_ID = "x-request-id"
PUSHBACK = "grpc-retry-pushback-ms"
DETAILS = "grpc-status-details-bin"

# Clients take 8 KiB of metadata: the message, and the details (which repeat it) in base64. Neither
# a long list of known names nor many violations may burst that.
MAX_MESSAGE = 600
MAX_VALUE = 300
MAX_VIOLATIONS = 2600  # all descriptions together

Code = grpc.StatusCode
Metadata = tuple[tuple[str, str | bytes], ...]


class Unavailable(Exception):
    """The server takes no requests now: it is starting, draining, or has lost a model."""

    def __init__(self, reason: str, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Unauthenticated(Exception):
    """No API key, or one that is not known."""


class UnknownMethod(Exception):
    """A call to a service or a method that this server does not have."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"This server has no method {path!r}. Server reflection lists those that it has."
        )


class TooManyRequests(Exception):
    """More requests at once than the server is set to hold in memory."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The server is already working on its limit of {limit} requests. "
            "Retry later or with less concurrency."
        )


class MessageTooLarge(Exception):
    """A request of more bytes than the server is set to take."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"The request has {size:,} bytes, over the limit of {limit:,}. Send smaller or more "
            "compressed images, or fewer of them."
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A status before it is written down; `retry_after_s` below 0 tells clients not to retry."""

    code: grpc.StatusCode
    reason: str
    message: str
    info: dict[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    retry_after_s: float | None = None
    resource: tuple[str, str] | None = None  # kind, name


def failure_of(error: BaseException) -> Failure | None:
    """The failure that an error stands for; None for one that nobody foresaw."""
    if isinstance(error, ImageError):
        return _of_image(error)
    return _of_request(error) or _of_engine(error)


def _of_image(error: ImageError) -> Failure:
    info = {
        key: str(value)
        for key, value in (("limit", error.limit), ("actual", error.actual))
        if value is not None
    }
    violation = Violation(error.field, f"{error.problem} {error.advice}")
    code = Code.NOT_FOUND if error.reason is Reason.UNKNOWN_CLASS else Code.INVALID_ARGUMENT
    return Failure(
        code,
        str(error.reason),
        str(error),
        {"field": error.field, **info},
        [violation],
        resource=("region class", str(error.actual)) if code is Code.NOT_FOUND else None,
    )


def _of_request(error: BaseException) -> Failure | None:  # noqa: PLR0911 - a table
    match error:
        case InvalidRequest():
            info = {"field": error.violations[0].field}
            return Failure(Code.INVALID_ARGUMENT, error.reason, str(error), info, error.violations)
        case UnknownThing():
            return Failure(
                Code.NOT_FOUND,
                _reason_of_kind(error.kind),
                str(error),
                {"field": error.field, "known": ",".join(error.known)},
                resource=(error.kind, error.name),
            )
        case Unsupported():
            info = {"field": error.field}
            return Failure(Code.FAILED_PRECONDITION, "UNSUPPORTED", str(error), info)
        case TokenOfAnotherModel():
            info = {"field": error.field, "made_by": error.made_by, "wanted": error.wanted}
            return Failure(Code.FAILED_PRECONDITION, "TOKEN_OF_ANOTHER_MODEL", str(error), info)
        case Unavailable():
            return Failure(
                Code.UNAVAILABLE, error.reason, str(error), retry_after_s=error.retry_after_s
            )
        case UnknownMethod():
            return Failure(Code.UNIMPLEMENTED, "UNKNOWN_METHOD", str(error))
        case Unauthenticated():
            return Failure(Code.UNAUTHENTICATED, "API_KEY", str(error))
        case MessageTooLarge():
            info = {"size": str(error.size), "limit": str(error.limit)}
            message = str(error)
            code = Code.RESOURCE_EXHAUSTED  # as gRPC itself answers, which clients would retry
            return Failure(code, "MESSAGE_TOO_LARGE", message, info, retry_after_s=-1)
        case TooManyRequests():
            return Failure(
                Code.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS", str(error), retry_after_s=0.5
            )
    return None


def _of_engine(error: BaseException) -> Failure | None:  # noqa: PLR0911 - a table
    match error:
        case UnknownName():
            info = {"known": ",".join(error.known)}
            named = (error.kind, error.name)
            return Failure(
                Code.NOT_FOUND, _reason_of_kind(error.kind), str(error), info, resource=named
            )
        case ModelNotFound():
            return Failure(
                Code.NOT_FOUND, "UNKNOWN_MODEL", str(error), resource=("model", error.model)
            )
        case QueueFull():
            return Failure(
                Code.RESOURCE_EXHAUSTED,
                "OVERLOADED",
                str(error),
                {"model": error.model},
                retry_after_s=error.retry_after_s,
            )
        case DeadlineExceeded() | TimeoutError():
            message = str(error) or "The deadline passed before the request was done."
            return Failure(Code.DEADLINE_EXCEEDED, "DEADLINE", message)
        case Draining():
            return Failure(Code.UNAVAILABLE, "DRAINING", str(error), retry_after_s=1.0)
        case DeviceFailed(reason=FailureKind.NON_FINITE):
            message = (
                f"The model {error.model!r} overflowed on these inputs. "
                "Use smaller strengths or offsets, or another picture."
            )
            return Failure(Code.INVALID_ARGUMENT, "NOT_FINITE", message, {"model": error.model})
        case DeviceFailed():
            # The cause may name paths or drivers: it is in the log, under the request's id.
            message = f"The model {error.model!r} failed on its device. Retry on another server."
            return Failure(
                Code.UNAVAILABLE,
                "DEVICE_FAILED",
                message,
                {"model": error.model},
                retry_after_s=1.0,
            )
    return None


def _reason_of_kind(kind: str) -> str:
    return "UNKNOWN_" + kind.upper().replace(" ", "_")


def internal(request_id: str) -> Failure:
    """The failure for what nobody foresaw."""
    message = (
        f"The server failed on this request. Report the request id {request_id} to its operator."
    )
    return Failure(Code.INTERNAL, "INTERNAL", message)


def with_request(failure: Failure, request_id: str) -> Failure:
    """The failure with the request's id among its metadata."""
    return replace(failure, info={**failure.info, "request_id": request_id})


def trailers(failure: Failure, request_id: str) -> Metadata:
    """Trailing metadata of a failed call: the request's id, the details, and when to retry."""
    status = status_pb2.Status(
        code=_number(failure.code),
        message=message_of(failure),
        details=_details(failure, request_id),
    )
    metadata: list[tuple[str, str | bytes]] = [
        (REQUEST_ID, request_id),
        (DETAILS, status.SerializeToString()),
    ]
    if failure.retry_after_s is not None:
        milliseconds = round(failure.retry_after_s * 1000)
        # Any negative pushback means "do not retry" (gRFC A6).
        metadata.append((PUSHBACK, str(max(1, milliseconds) if milliseconds >= 0 else -1)))
    return tuple(metadata)


def message_of(failure: Failure) -> str:
    """The status's message, cut to what a client takes."""
    return _cut(failure.message, MAX_MESSAGE)


def _details(failure: Failure, request_id: str) -> list[any_pb2.Any]:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=failure.reason,
            domain=DOMAIN,
            metadata={key: _cut(value, MAX_VALUE) for key, value in failure.info.items()},
        )
    ]
    if failure.violations:
        share = min(MAX_MESSAGE, MAX_VIOLATIONS // len(failure.violations))
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(each.field, 96), description=_cut(each.description, share)
                    )
                    for each in failure.violations
                ]
            )
        )
    if failure.resource is not None:
        kind, name = failure.resource
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=kind,
                resource_name=_cut(name, 128),
            )
        )
    if failure.retry_after_s is not None and failure.retry_after_s >= 0:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(timedelta(seconds=failure.retry_after_s))
        details.append(retry)
    details.append(error_details_pb2.RequestInfo(request_id=request_id))
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return packed


def _number(code: grpc.StatusCode) -> int:
    return int(code_pb2.Code.Value(code.name))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
