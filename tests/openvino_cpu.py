"""OpenVINO's CPU for the tests that need it."""

from __future__ import annotations

import platform
import sys
from typing import Any

import onnxruntime
import pytest

from velatura.server.engine.openvino import Precision, computes_in, cpu_device


def openvino_cpu(precision: Precision = Precision.F32) -> Any:
    """The device; skips the test where there is no plugin for the platform, or the CPU has no
    instructions for `precision`. Anywhere else the development environment has the plugin, and its
    absence is a failure: raises NoOpenvino.
    """
    if sys.platform not in ("linux", "win32") or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("there is no OpenVINO plugin for this platform")
    device = cpu_device(onnxruntime)
    if not computes_in(device, precision):
        pytest.skip(f"this CPU has no instructions for {precision}")
    return device
