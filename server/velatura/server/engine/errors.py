"""Everything that can go wrong between a pipeline and a network; the RPC layer maps each type to
one status.
"""

# ruff: noqa: N818 - the names say what happened, as gRPC's statuses do

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class EngineError(Exception):
    """Base of all errors of the engine."""


class ModelNotFound(EngineError):
    """No network of that name is in the bundle; `known` are the names that are."""

    def __init__(self, model: str, known: Iterable[str] = ()) -> None:
        self.model = model
        self.known = tuple(known)
        super().__init__(
            f"model {model!r} is not in the bundle. Use one of: {listing(self.known)}."
        )


class InvalidTensor(EngineError):
    """An input that does not fit the manifest; `input` names the tensor."""

    def __init__(self, model: str, input: str, expected: str, got: str) -> None:
        self.model = model
        self.input = input
        self.expected = expected
        self.got = got
        super().__init__(f"input {input!r} of model {model!r}: expected {expected}, got {got}.")


class Refusal(StrEnum):
    """Why a request was not admitted to a queue: the label of velatura_admission_refusals_total."""

    QUEUE_ITEMS = "queue_items"
    QUEUE_BYTES = "queue_bytes"
    BACKLOG_BYTES = "backlog_bytes"  # of all networks
    BACKLOG_PIXELS = "backlog_pixels"
    DEADLINE = "deadline"
    EXPIRED = "expired"
    DRAINING = "draining"


class QueueFull(EngineError):
    """Not admitted now: the queue has no room, or the deadline cannot be met behind what already
    waits.

    `retry_after_s` is when the same request has a chance, from the measured cost of this model's
    batches.
    """

    def __init__(self, model: str, retry_after_s: float, reason: Refusal, detail: str) -> None:
        self.model = model
        self.retry_after_s = retry_after_s
        self.reason = reason
        super().__init__(
            f"model {model!r} is overloaded: {detail}. Retry in {retry_after_s:.2f} s."
        )


class DeadlineExceeded(EngineError):
    """The deadline passed before the request reached the device; no time was spent on it there."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(
            f"the deadline passed before model {model!r} could run. "
            "Allow more time or send fewer requests at once."
        )


class Draining(EngineError):
    """The engine is stopping (or has not started) and takes no new work."""

    def __init__(self, detail: str = "the server is draining") -> None:
        super().__init__(f"{detail}. Send the request to another server.")


class FailureKind(StrEnum):
    """How a run failed: the label of velatura_model_failures_total."""

    EXECUTION = "execution"
    DEVICE_LOST = "device_lost"
    NON_FINITE = "non_finite"
    OUTPUT_SHAPE = "output_shape"


class DeviceFailed(EngineError):
    """The network ran and failed, or answered with numbers that are none."""

    def __init__(self, model: str, reason: FailureKind, detail: str) -> None:
        self.model = model
        self.reason = reason
        super().__init__(f"model {model!r} failed on its device ({reason}): {detail}")


class ProviderError(EngineError):
    """onnxruntime is not installed as it must be, or the wanted execution provider is not really
    used.
    """


class BundleError(EngineError):
    """A bundle that cannot be used; says the file, the field, what was expected and found, and the
    remedy.
    """

    def __init__(self, file: str, field: str, *, expected: str, found: str, remedy: str) -> None:
        self.file = file
        self.field = field
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(f"{file}: {field}: expected {expected}, found {found}. {remedy}")


class UnknownName(EngineError):
    """A generator, direction, style or other named part that the bundle does not have."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(known)
        super().__init__(f"unknown {kind} {name!r}. Use one of: {listing(self.known)}.")


def listing(names: Iterable[str]) -> str:
    """`names` for a message: comma-separated, or the word "none"."""
    return ", ".join(names) or "none"
