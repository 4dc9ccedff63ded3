"""What the system calls our threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from velatura.server.engine.thread_names import LONGEST, named_pool


def known_as() -> str:
    return Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux alone names threads so")
def test_a_thread_is_named_and_long_names_are_cut() -> None:
    before = known_as()
    with named_pool(1, "run-a-network-of-a-long-name") as pool:
        assert pool.submit(known_as).result() == "run-a-network-of-a-long-name"[:LONGEST]
    assert known_as() == before
