"""What importing the server's package does to the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import os
import velatura.server
import numpy as np
np.ones((400, 400), np.float32) @ np.ones((400, 400), np.float32)
print(len(os.listdir("/proc/self/task")), os.environ["OPENBLAS_NUM_THREADS"])
"""


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "1 1"), ({"OPENBLAS_NUM_THREADS": "2"}, "2 2")]
)
def test_numpy_starts_no_threads_of_its_own(given: dict[str, str], expected: str) -> None:
    """Unless the operator says otherwise; threads that spin take the CPUs from onnxruntime."""
    if not Path("/proc/self/task").is_dir() or (os.cpu_count() or 1) < 2:
        pytest.skip("threads are counted in /proc, on two CPUs or more")
    plain = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=plain | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == expected.split()
