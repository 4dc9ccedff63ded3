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
    if isinstance(given, str) and _is_plain(given):
        return given
    return uuid.uuid4().hex


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= MAX_REQUEST_ID and text.isascii() and text.isprintable()
