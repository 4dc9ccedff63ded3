"""The CPU is never taken silently, and the two wheels of onnxruntime never together."""

from __future__ import annotations

import logging
import re

import pytest

from velatura.server.engine.errors import ProviderError
from velatura.server.engine.providers import (
    CPU,
    CUDA,
    Provider,
    confirm_provider,
    load_onnxruntime,
    plan_providers,
)
from velatura.server.observability.metrics import Metrics

GPU_BUILD = [CUDA, CPU]
CPU_BUILD = ["AzureExecutionProvider", CPU]


def fallbacks(metrics: Metrics, requested: str, reason: str) -> float:
    labels = {"requested": requested, "reason": reason}
    return metrics.registry.get_sample_value("velatura_provider_fallback_total", labels) or 0.0


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        ({"onnxruntime", "onnxruntime-gpu"}, "pip uninstall -y onnxruntime onnxruntime-gpu"),
        (set(), 'pip install "velatura-server[cpu]"'),
    ],
)
def test_both_or_neither_wheel_names_the_command(installed: set[str], words: str) -> None:
    with pytest.raises(ProviderError, match=re.escape(words)):
        load_onnxruntime(installed.__contains__)


@pytest.mark.parametrize("wheel", ["onnxruntime", "onnxruntime-gpu"])
def test_one_wheel_is_right(wheel: str) -> None:
    assert load_onnxruntime(wheel.__eq__).__name__ == "onnxruntime"


def test_cuda_options_follow_the_limits(metrics: Metrics) -> None:
    plan = plan_providers(
        Provider.CUDA, strict=True, metrics=metrics, gpu_mem_limit=1 << 30, available=GPU_BUILD
    )
    options = {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": "1073741824",
    }
    assert plan.providers == [(CUDA, options), CPU]


@pytest.mark.parametrize("strict", [False, True])
def test_auto_on_cpu_build_is_visible_not_alarming(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, strict: bool
) -> None:
    with caplog.at_level(logging.INFO):
        plan = plan_providers(Provider.AUTO, strict=strict, metrics=metrics, available=CPU_BUILD)
    assert plan.providers == [CPU]
    assert fallbacks(metrics, "auto", "cpu_build") == 1
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert confirm_provider(plan, [CPU], "m", metrics) == CPU


def test_cuda_on_cpu_build(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ProviderError, match="pip uninstall"):
        plan_providers(Provider.CUDA, strict=True, metrics=metrics, available=CPU_BUILD)
    plan = plan_providers(Provider.CUDA, strict=False, metrics=metrics, available=CPU_BUILD)
    assert plan.providers == [CPU]
    assert fallbacks(metrics, "cuda", "cpu_build") == 1
    assert caplog.records[-1].levelno == logging.WARNING


@pytest.mark.parametrize("requested", [Provider.AUTO, Provider.CUDA])
def test_gpu_build_without_gpu(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, requested: Provider
) -> None:
    strict = plan_providers(requested, strict=True, metrics=metrics, available=GPU_BUILD)
    with pytest.raises(ProviderError, match="nvidia-smi"):
        confirm_provider(strict, [CPU], "m", metrics)
    loose = plan_providers(requested, strict=False, metrics=metrics, available=GPU_BUILD)
    assert confirm_provider(loose, [CPU], "m", metrics) == CPU
    assert fallbacks(metrics, requested, "cuda_failed") == 1
    assert caplog.records[-1].levelno == logging.WARNING
    assert confirm_provider(loose, [CUDA, CPU], "m", metrics) == CUDA


def test_cpu_needs_no_look_at_the_build(metrics: Metrics) -> None:
    plan = plan_providers(Provider.CPU, strict=True, metrics=metrics, available=GPU_BUILD)
    assert plan.providers == [CPU]
    assert confirm_provider(plan, [CPU], "m", metrics) == CPU
