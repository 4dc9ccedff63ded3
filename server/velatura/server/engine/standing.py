"""Who asks, and how urgently: what the scheduler knows about the call behind a request.

It travels in a context variable, as the call's record does: pipelines and networks need not hand it
on.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """How urgent a request is; lower goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Standing:
    """`caller` is whoever shares the device as one: an API key's digest or a host, "" for nobody in
    particular. `since` is when the call arrived, on time.monotonic()'s clock; None where no call is
    behind the request: it counts from its own arrival then. `returning` is a call that was turned
    away before, and comes again when it was told to.
    """

    caller: str = ""
    priority: Priority = Priority.NORMAL
    since: float | None = None
    returning: bool = False


NOBODY = Standing()

current_standing: ContextVar[Standing] = ContextVar("current_standing", default=NOBODY)
