"""What is known about the call being served, within its task."""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from dataclasses import dataclass

MAX_REQUEST_ID = 128


@dataclass(frozen=True, slots=True)
class Call:
    """Id of the request, and its deadline in `time.monotonic()` seconds."""

    request_id: str
    deadline: float


current_call: ContextVar[Call] = ContextVar("current_call")


def request_id_of(given: str | bytes | None) -> str:
    """The caller's id where it is a short printable one, else a new one."""
    if isinstance(given, str) and 0 < len(given) <= MAX_REQUEST_ID:
        if given.isascii() and given.isprintable() and " " not in given:
            return given
    return uuid.uuid4().hex
