"""The benchmark's table of precisions: what it says of OpenVINO, and where there is none."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import precisions
from velatura.server.engine.openvino import NoOpenvino, Precision

IMAGES = np.linspace(-1.5, 1.5, 48, dtype=np.float32).reshape(1, 3, 4, 4)
NOWHERE = Path("nowhere.onnx")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def measured(calls: dict[str, precisions.Call]) -> list[str]:
    seconds = {"f32": 0.02, "bf16": 0.01, precisions.PUBLISHED: 0.03, precisions.OURS: 0.05}
    taken = {name: seconds[name] for name in calls}
    line = precisions.row("net | 2 | 1", calls, taken, (0.04, 0.06), IMAGES)
    found = cells(line)
    assert len(found) == len(precisions.HEADING)
    return found


def test_without_the_plugin_the_cells_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> None:
        raise NoOpenvino("", installed=False)

    monkeypatch.setattr(precisions, "cpu_device", missing)
    eager = torch.from_numpy(IMAGES)
    calls = precisions.ways(NOWHERE, 1, {}, lambda: eager, lambda: eager)
    assert list(calls) == [precisions.PUBLISHED, precisions.OURS]
    found = measured(calls)
    assert found[3:6] == found[6:9] == ["no plugin", "", ""]
    assert found[10:] == ["30.0", "inf", "50.0", "inf", "", ""]


def test_a_cpu_without_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(ep_metadata={"OPTIMIZATION_CAPABILITIES": "FP32"})
    monkeypatch.setattr(precisions, "cpu_device", lambda _: device)
    assert precisions.unavailable(Precision.F32) == ""
    assert precisions.unavailable(Precision.BF16) == "CPU without bf16"


def test_a_line_compares_with_both_eager_forms() -> None:
    calls = {name: lambda: IMAGES for name in (*Precision, precisions.PUBLISHED, precisions.OURS)}
    assert measured(dict(calls)) == [
        *("net", "2", "1"),
        *("20.0", "2.00 ×", "3.00 ×"),
        *("10.0", "4.00 ×", "6.00 ×", "inf"),
        *("30.0", "inf", "50.0", "inf", "3.00 ×", "5.00 ×"),
    ]


def test_eager_forms_are_really_put_into_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "unavailable", lambda _: "not asked for")
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    exact = (weight @ weight).numpy()
    calls = precisions.ways(NOWHERE, 1, {}, lambda: weight @ weight, lambda: weight)
    rounded = calls[precisions.PUBLISHED]()
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.1
    np.testing.assert_array_equal(rounded, torch.from_numpy(rounded).bfloat16().float().numpy())


def test_psnr_looks_at_what_is_shown() -> None:
    assert precisions.psnr(IMAGES, np.clip(IMAGES, -1, 1)) == math.inf
    flat = np.zeros((1, 3, 4, 4), np.float32)
    assert precisions.psnr(flat, flat + np.float32(0.02)) == pytest.approx(40, abs=1e-3)
