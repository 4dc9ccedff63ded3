"""Who is calling and how urgently, as the scheduler shares the devices by."""

from __future__ import annotations

import time
from collections.abc import Iterable
from urllib.parse import unquote

from velatura.server.engine.standing import Priority, Standing
from velatura.server.pipelines.errors import InvalidRequest

PRIORITY = "velatura-priority"
_PRIORITIES = {each.name.lower(): each for each in Priority}


def standing_of(
    metadata: Iterable[tuple[str, str | bytes]],
    peer: str,
    tenant: bytes,
    *,
    returning: bool = False,
) -> Standing:
    """A call's standing: its caller is the API key that it came with (`tenant`, a digest), or else
    the host that `peer` names. Raises `InvalidRequest` for a priority that there is not.
    """
    given = next((value for key, value in metadata if key.lower() == PRIORITY), "normal")
    name = given.decode(errors="replace") if isinstance(given, bytes) else given
    priority = _PRIORITIES.get(name.strip().lower())
    if priority is None:
        raise InvalidRequest.of(
            f"metadata[{PRIORITY}]",
            f"expected one of {', '.join(_PRIORITIES)}, got {name[:40]!r}.",
        )
    caller = tenant.hex() if tenant else host_of(peer)
    return Standing(caller, priority, time.monotonic(), returning)


def host_of(peer: str) -> str:
    """The host of gRPC's "ipv4:1.2.3.4:567": a caller gets no larger share by more connections."""
    kind, _, address = unquote(peer).partition(":")
    return address.rpartition(":")[0] if kind in ("ipv4", "ipv6") else address
