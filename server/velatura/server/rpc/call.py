"""What is known about the call being served, within its task."""

from __future__ import annotations

import os
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from velatura.server.observability.record import CallRecord

# Visible ASCII, short enough for a line of the log.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
# gRPC sends timeouts with two digits or three and rounds them up: a caller's own clock ends the
# call up to so much before the deadline that arrives here.
ROUNDING = 0.01
ROUNDING_S = 0.005


@dataclass(frozen=True, slots=True)
class Call:
    """Id of the request, its deadline in `time.monotonic()` seconds, by how many seconds the
    caller's own clock may be ahead of that, and what is noted about the call. `returning`: it was
    turned away before, and comes again when it was told to.
    """

    request_id: str
    deadline: float
    slack_s: float = 0.0
    record: CallRecord = field(default_factory=CallRecord)
    returning: bool = False

    def late(self) -> bool:
        """Whether a caller who hangs up now does so because its deadline has passed."""
        return time.monotonic() >= self.deadline - self.slack_s


current_call: ContextVar[Call] = ContextVar("current_call")
# Whose call it is: the digest of the API key, b"" where none are asked for. Nothing that was
# computed for one is given to another.
current_tenant: ContextVar[bytes] = ContextVar("current_tenant", default=b"")


def slack_of(timeout_s: float) -> float:
    """Seconds by which a caller's clock may be ahead of a timeout that it has sent."""
    return max(ROUNDING_S, ROUNDING * timeout_s)


def request_id_of(given: str | bytes | None) -> str:
    """The caller's id where it is 1 to 128 visible ASCII characters, else a new one."""
    if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
        return given
    return os.urandom(16).hex()
