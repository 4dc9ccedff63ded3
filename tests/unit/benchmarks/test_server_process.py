"""Servers in processes of their own: that they end, and what is shown when they go wrong."""

from __future__ import annotations

import sys

import psutil
import pytest

from benchmarks.server_process import running, wait_ready

LISTENS_TO_NOBODY = "127.0.0.1:1"


def test_a_server_that_ends_by_itself_is_not_waited_for(
    capfd: pytest.CaptureFixture[str],
) -> None:
    command = [sys.executable, "-c", "print('no such bundle'); raise SystemExit(3)"]
    with (
        pytest.raises(RuntimeError, match="ended before it was ready"),
        running(command, LISTENS_TO_NOBODY) as served,
    ):
        wait_ready(served, timeout_s=20)
    assert "no such bundle" in capfd.readouterr().err


def test_a_server_is_measured_and_ended(capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    with running(command, LISTENS_TO_NOBODY, drains=False) as served:
        assert served.process.is_running()
        assert served.rss() > 0
        assert served.cpu_s() >= 0
    assert not psutil.pid_exists(served.process.pid)
    assert capfd.readouterr().err == ""
