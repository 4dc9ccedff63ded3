"""Names that the system knows threads by, so that `top -H` tells running networks from the rest."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The system cuts longer ones.
LONGEST = 15
# What the names of threads that run networks begin with.
RUNS = "run-"


def name_thread(name: str) -> None:
    """Name the calling thread; the threads that it starts inherit that. Linux alone has the file;
    elsewhere nothing happens.
    """
    own = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
    with contextlib.suppress(OSError):
        own.write_text(name[:LONGEST])


def named_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads Python and the system know by `name`."""
    return ThreadPoolExecutor(threads, name, name_thread, (name,))
