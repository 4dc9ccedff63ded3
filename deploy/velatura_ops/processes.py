"""Programs that run while a block runs: started, waited for until they answer, stopped in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_S = 120.0
STOP_S = 60.0


class DidNotStart(Exception):  # noqa: N818 - says what happened
    """A program ended or stayed silent; the message names it and ends with its log."""


def free_port() -> int:
    """A port of this host's that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> Callable[[], bool]:
    """A test whether GET of `url` succeeds."""

    def test() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    return test


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    start_s: float = START_S,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` for the block, from when `ready` says so; its output goes to `log`.

    Raises `DidNotStart`. It is asked to end (SIGTERM) and, after a minute, made to.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            # Ctrl-C is for the stack, which then stops its parts in order.
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + start_s
        while not ready():
            if process.poll() is not None:
                raise DidNotStart(f"{name} ended with code {process.returncode}:\n{_tail(log)}")
            if time.monotonic() > deadline:
                raise DidNotStart(f"{name} did not answer in {start_s:g} s:\n{_tail(log)}")
            time.sleep(0.1)
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
