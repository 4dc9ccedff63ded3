"""A network steps down from bfloat16 to float32 to the CPU, as far as its outputs make it."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.agreement import EQUAL_DB, agreement, open_agreeing
from velatura.server.engine.errors import DeviceFailed, FailureKind, ProviderError
from velatura.server.engine.openvino import OPENVINO, OpenvinoOptions, Precision
from velatura.server.engine.providers import CPU, Provider, ProviderPlan
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry, TensorSpec

ENTRY = ModelEntry(name="m", inputs=[TensorSpec(name="x", dtype="float32", shape=[-1, 1000])])


class Session:
    """x and an error of a given size; None fails."""

    def __init__(self, provider: str, error: float | None = 0.0) -> None:
        self.provider = provider
        self._error = error

    def run(self, inputs: Any) -> Any:
        if self._error is None:
            raise DeviceFailed("m", FailureKind.EXECUTION, "out of registers")
        assert inputs["x"].shape == (2, 1000)
        return {"y": inputs["x"] + np.float32(self._error)}


def opened(
    metrics: Metrics, errors: dict[Precision, float | None], *, strict: bool = False
) -> tuple[str, str]:
    """The provider and the precision that were come to, from bfloat16."""

    def open_with(plan: ProviderPlan) -> tuple[Session, None]:
        if plan.openvino is None:
            return Session(CPU), None
        return Session(OPENVINO, errors[plan.openvino.precision]), None

    options = OpenvinoOptions(Precision.BF16)
    plan = ProviderPlan(Provider.OPENVINO, strict, [OPENVINO, CPU], openvino=options)
    (session, _), came_to = open_agreeing(ENTRY, plan, 2, metrics, open_with, lambda: Session(CPU))
    assert came_to.providers[0] == session.provider
    return session.provider, came_to.openvino.precision if came_to.openvino else ""


def fallbacks(metrics: Metrics) -> dict[str, float]:
    samples = [each for family in metrics.registry.collect() for each in family.samples]
    name = "velatura_provider_fallback_total"
    return {each.labels["reason"]: each.value for each in samples if each.name == name}


def test_what_agrees_is_kept_and_the_log_says_how_well(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert opened(metrics, {Precision.BF16: 0.05}, strict=True) == (OPENVINO, "bf16")
    assert fallbacks(metrics) == {}
    assert re.fullmatch(
        r"model m: OpenVINO in bf16, PSNR 4\d dB against onnxruntime's float32",
        caplog.messages[-1],
    )


def test_bfloat16_that_is_off_gives_way_to_float32_even_strictly(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    errors: dict[Precision, float | None] = {Precision.BF16: 0.5, Precision.F32: 1e-5}
    assert opened(metrics, errors, strict=True) == (OPENVINO, "f32")
    assert fallbacks(metrics) == {"bf16_inexact": 1}
    assert "model m: PSNR 2" in caplog.text


def test_float32_that_is_off_gives_way_to_the_cpu_unless_strict(metrics: Metrics) -> None:
    errors: dict[Precision, float | None] = {Precision.BF16: 0.5, Precision.F32: 0.05}
    assert opened(metrics, errors) == (CPU, "")
    assert fallbacks(metrics) == {"bf16_inexact": 1, "openvino_inexact": 1}
    with pytest.raises(ProviderError, match=r"model 'm' .* PSNR \d+ dB .* 60 are asked for"):
        opened(metrics, errors, strict=True)


def test_what_fails_on_openvino_runs_on_the_cpu_unless_strict(metrics: Metrics) -> None:
    errors: dict[Precision, float | None] = {Precision.BF16: None, Precision.F32: None}
    assert opened(metrics, errors) == (CPU, "")
    assert fallbacks(metrics) == {"openvino_failed": 2}
    with pytest.raises(ProviderError, match="out of registers"):
        opened(metrics, errors, strict=True)


def test_other_plans_are_not_questioned(metrics: Metrics, tmp_path: Path) -> None:
    plan = ProviderPlan(Provider.CPU, True, [CPU])

    def reference() -> Session:
        raise AssertionError("not asked for")

    session = Session(CPU)
    result = open_agreeing(ENTRY, plan, 2, metrics, lambda _: (session, "more"), reference)
    assert result == ((session, "more"), plan)


def test_the_worst_output_counts() -> None:
    half = np.array([0.0, 0.5], np.float32)
    exact = {"a": half, "b": np.array([3, 4])}
    assert agreement(exact, exact) == EQUAL_DB
    off = {"a": half + np.float32(0.05), "b": np.array([3, 4])}
    assert agreement(exact, off) == pytest.approx(20, abs=1e-4)  # a tenth of the range
    assert agreement(exact, {"a": half, "b": np.array([4, 3])}) == pytest.approx(0)
    assert agreement(exact, {"a": half * np.nan, "b": exact["b"]}) == -math.inf
    flat = np.full(4, 2.0)
    assert agreement({"y": flat}, {"y": flat * 1.01}) == pytest.approx(40)
    assert agreement({"y": np.zeros((0, 3))}, {"y": np.zeros((0, 3))}) == EQUAL_DB
