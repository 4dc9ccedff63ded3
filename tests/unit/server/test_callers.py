"""Who a call counts for, and how urgent it is."""

from __future__ import annotations

import time

import pytest

from velatura.server.engine.standing import Priority
from velatura.server.pipelines.errors import InvalidRequest
from velatura.server.rpc.callers import host_of, standing_of


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:51234", "10.0.0.7"),
        ("ipv6:%5B::1%5D:51234", "[::1]"),
        ("ipv6:[2001:db8::1]:80", "[2001:db8::1]"),
        ("unix:/run/velatura.sock", "/run/velatura.sock"),
        ("", ""),
    ],
)
def test_more_connections_are_no_more_callers(peer: str, host: str) -> None:
    assert host_of(peer) == host


def test_a_key_counts_before_the_host() -> None:
    keyed = standing_of((), "ipv4:10.0.0.7:1", b"\x01\xab")
    assert keyed.caller == "01ab"
    assert standing_of((), "ipv4:10.0.0.7:1", b"").caller == "10.0.0.7"
    assert keyed.priority is Priority.NORMAL
    assert keyed.since == pytest.approx(time.monotonic(), abs=5.0)


@pytest.mark.parametrize(
    ("value", "priority"),
    [("high", Priority.HIGH), (" Low ", Priority.LOW), (b"normal", Priority.NORMAL)],
)
def test_priorities_by_name(value: str | bytes, priority: Priority) -> None:
    metadata = (("x-request-id", "1"), ("velatura-priority", value))
    assert standing_of(metadata, "", b"").priority is priority


def test_an_unknown_priority_is_named_with_the_known() -> None:
    with pytest.raises(InvalidRequest, match="high, normal, low, got 'urgent'") as raised:
        standing_of((("velatura-priority", "urgent"),), "", b"")
    assert raised.value.violations[0].field == "metadata[velatura-priority]"
