"""What figures were measured on: without it they mean nothing to others."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("onnxruntime", "grpcio", "numpy", "protobuf", "uvloop")


def facts() -> dict[str, str]:
    """Name and value of each, for people."""
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "CPU": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} CPUs for this run",
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {number}" for name, number in versions.items() if number),
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


class Steal:
    """Share of CPU time that others of the same host, or other programs, took during a block: a
    noisy run should not pass for a quiet one."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def share(self) -> float:
        """Of all CPU time since the start, that stolen from this machine; 0 to 1."""
        now = psutil.cpu_times()
        total = sum(now[:8]) - sum(self._before[:8])
        stolen = getattr(now, "steal", 0.0) - getattr(self._before, "steal", 0.0)
        return stolen / total if total > 0 else 0.0


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
