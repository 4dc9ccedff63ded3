"""The CPU is never taken silently, and the two wheels of onnxruntime never together."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest

from velatura.server.engine.errors import ProviderError
from velatura.server.engine.providers import (
    CPU,
    CUDA,
    TENSORRT,
    Provider,
    confirm_provider,
    load_onnxruntime,
    plan_providers,
)
from velatura.server.engine.tensorrt import TensorrtOptions
from velatura.server.engine.warming import Sizes
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry, TensorSpec

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


TENSORRT_BUILD = [TENSORRT, CUDA, CPU]


def model(*, free: bool = False) -> ModelEntry:
    shape = [-1, 3, -1, -1] if free else [-1, 3, 64, 64]
    image = TensorSpec(name="image", dtype="float32", shape=shape, multiple_of=4 if free else 0)
    return ModelEntry(name="m", inputs=[image, TensorSpec(name="code", shape=[-1, 5])])


def test_tensorrt_falls_through_to_cuda_and_then_the_cpu(metrics: Metrics) -> None:
    plan = plan_providers(
        Provider.TENSORRT,
        strict=True,
        metrics=metrics,
        gpu_mem_limit=5,
        cuda_graphs=True,
        tensorrt=TensorrtOptions(Path("/engines"), fp16=True, cuda_graphs=True, workspace=7),
        available=TENSORRT_BUILD,
    )
    (first, options), (second, cuda), third = plan.providers
    assert (first, second, third) == (TENSORRT, CUDA, CPU)
    assert options == {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/engines",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "/engines",
        "trt_cuda_graph_enable": "1",
        "trt_max_workspace_size": "7",
    }
    assert cuda["gpu_mem_limit"] == "5"
    assert "enable_cuda_graph" not in cuda
    assert plan.wants_gpu
    assert not plan.cuda_graphs  # they are TensorRT's here


def test_tensorrt_is_told_the_shapes_of_every_network(metrics: Metrics) -> None:
    plan = plan_providers(Provider.TENSORRT, strict=True, metrics=metrics, available=TENSORRT_BUILD)
    sizes = Sizes(8, (), (254, 128, 512))
    (_, options), *_ = plan.fitted(model(free=True), sizes).providers
    assert options["trt_profile_min_shapes"] == "image:1x3x128x128,code:1x5"
    assert options["trt_profile_opt_shapes"] == "image:8x3x256x256,code:8x5"
    assert options["trt_profile_max_shapes"] == "image:8x3x512x512,code:8x5"
    (_, options), *_ = plan.fitted(model(), Sizes(4, (1, 2, 4))).providers
    assert options["trt_profile_max_shapes"] == "image:4x3x64x64,code:4x5"
    cpu = plan_providers(Provider.CPU, strict=True, metrics=metrics)
    assert cpu.fitted(model(), sizes) is cpu


def test_a_build_without_tensorrt(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ProviderError, match="no TensorrtExecutionProvider"):
        plan_providers(Provider.TENSORRT, strict=True, metrics=metrics, available=GPU_BUILD)
    loose = plan_providers(Provider.TENSORRT, strict=False, metrics=metrics, available=GPU_BUILD)
    assert loose.wanted == CUDA
    assert fallbacks(metrics, "tensorrt", "no_tensorrt") == 1
    assert "CUDAExecutionProvider" in caplog.records[-1].getMessage()
    none = plan_providers(Provider.TENSORRT, strict=False, metrics=metrics, available=CPU_BUILD)
    assert none.providers == [CPU]
    assert fallbacks(metrics, "tensorrt", "cpu_build") == 1


def test_tensorrt_that_does_not_load(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    strict = plan_providers(
        Provider.TENSORRT, strict=True, metrics=metrics, available=TENSORRT_BUILD
    )
    with pytest.raises(ProviderError, match="should run on TensorrtExecutionProvider"):
        confirm_provider(strict, [CUDA, CPU], "m", metrics)
    loose = replace(strict, strict=False)
    assert confirm_provider(loose, [CUDA, CPU], "m", metrics) == CUDA
    assert fallbacks(metrics, "tensorrt", "tensorrt_failed") == 1
    assert "running on CUDAExecutionProvider" in caplog.records[-1].getMessage()
    assert confirm_provider(loose, TENSORRT_BUILD, "m", metrics) == TENSORRT


def test_auto_never_builds_engines(metrics: Metrics) -> None:
    plan = plan_providers(Provider.AUTO, strict=True, metrics=metrics, available=TENSORRT_BUILD)
    assert plan.wanted == CUDA


def test_cuda_graphs_are_asked_for_by_option_and_plan(metrics: Metrics) -> None:
    plan = plan_providers(
        Provider.CUDA, strict=True, metrics=metrics, cuda_graphs=True, available=GPU_BUILD
    )
    (_, options), _ = plan.providers
    assert options["enable_cuda_graph"] == "1"
    assert plan.cuda_graphs
