"""Keeping freed memory: the system need not clear the same pages again and again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# A megabyte, as of a batch of images, written and freed.
FAULTS = """
import resource, sys
import numpy as np
from velatura.server.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    for _ in range(100):
        kept = [np.ones(65536, np.float32) for _ in range(4)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_memory_that_is_used_again_causes_no_page_faults() -> None:
    given_back, kept = faults("give back"), faults("keep")
    assert kept < 100 + given_back / 20
