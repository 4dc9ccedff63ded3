"""Who was turned away and told when to come again: what has been said is kept to.

Under a steady overload whoever asks at the right moment gets in, and a caller who waits as told is
no more likely to than anybody else; the delay that was named would be a word without meaning.
"""

from __future__ import annotations

import time

from cachetools import TTLCache

# Set by gRPC's own retries, which come when they are told to (gRFC A6).
PREVIOUS_ATTEMPTS = "grpc-previous-rpc-attempts"
# Ids that are remembered, and for how long: who has not come by then does not come.
MOST = 16_384
KEPT_S = 60.0
# Timers of callers may be early by as much.
EARLY_S = 0.01


class TurnedAway:
    """Request ids of calls that were turned away; belongs to one event loop."""

    def __init__(self) -> None:
        self._due: TTLCache[str, float] = TTLCache(MOST, KEPT_S, time.monotonic)

    def told(self, request_id: str, after_s: float) -> None:
        """The call with this id, which its caller has chosen, may come again after so long."""
        self._due[request_id] = time.monotonic() + after_s

    def comes_as_told(self, request_id: str) -> bool:
        """Whether a call that arrives now was turned away before, and has waited as it was told.
        That counts once.
        """
        due = self._due.pop(request_id, None)
        return due is not None and time.monotonic() >= due - EARLY_S
