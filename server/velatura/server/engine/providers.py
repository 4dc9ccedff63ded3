"""Chooses onnxruntime's execution provider and tells the truth about the one that is really used.

onnxruntime itself falls back to the CPU with no more than a line on stderr; here the fall is an
error under `strict`, and a log record and a counter otherwise.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import Any, TypeAlias

from velatura.server.engine.errors import ProviderError
from velatura.server.observability.metrics import Metrics

log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

CPU_WHEEL = "onnxruntime"
GPU_WHEEL = "onnxruntime-gpu"
# Both wheels put their files into the same folder: uninstalling one breaks the other, hence both go
# first.
CPU_COMMAND = f'pip uninstall -y {CPU_WHEEL} {GPU_WHEEL} && pip install "velatura-server[cpu]"'
GPU_COMMAND = f'pip uninstall -y {CPU_WHEEL} {GPU_WHEEL} && pip install "velatura-server[gpu]"'

ProviderList: TypeAlias = list[str | tuple[str, dict[str, str]]]


class Provider(StrEnum):
    """What the operator asks for."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class FallbackReason(StrEnum):
    """Why CUDA was not used: the label of velatura_provider_fallback_total."""

    CPU_BUILD = "cpu_build"
    CUDA_FAILED = "cuda_failed"


@dataclass(frozen=True, slots=True)
class ProviderPlan:
    """What to hand to onnxruntime, and what must come of it."""

    requested: Provider
    strict: bool
    providers: ProviderList

    @property
    def wants_cuda(self) -> bool:
        """Whether CUDA is first in the list."""
        return isinstance(self.providers[0], tuple)


def installed_wheels(is_installed: Callable[[str], bool] | None = None) -> list[str]:
    """Which of the two onnxruntime wheels are installed."""
    return [name for name in (CPU_WHEEL, GPU_WHEEL) if (is_installed or _is_installed)(name)]


def load_onnxruntime(is_installed: Callable[[str], bool] | None = None) -> Any:
    """The onnxruntime module; raises ProviderError unless exactly one of its wheels is installed.

    A build without a wheel's metadata, such as one from source, is taken as it is.
    """
    wheels = installed_wheels(is_installed)
    if len(wheels) > 1:
        raise ProviderError(
            f"both {CPU_WHEEL} and {GPU_WHEEL} are installed, "
            "and they overwrite each other's files. "
            f"Keep one: `{CPU_COMMAND}`, or with a GPU `{GPU_COMMAND}`."
        )
    if not wheels and (is_installed or importlib.util.find_spec(CPU_WHEEL) is None):
        raise ProviderError(
            "onnxruntime is not installed. Choose one build: "
            '`pip install "velatura-server[cpu]"`, '
            'or with a GPU `pip install "velatura-server[gpu]"`.'
        )
    try:
        return importlib.import_module(CPU_WHEEL)
    except ImportError as error:
        raise ProviderError(
            f"onnxruntime is installed but does not load ({error}). "
            f"Install it again: `{CPU_COMMAND}`, or with a GPU `{GPU_COMMAND}`."
        ) from error


def plan_providers(
    requested: Provider,
    *,
    strict: bool,
    metrics: Metrics,
    gpu_mem_limit: int = 0,
    available: Sequence[str] | None = None,
) -> ProviderPlan:
    """The providers to ask onnxruntime for.

    `gpu_mem_limit` is in bytes, 0 for none. `available` is for tests; by default what the installed
    build can do. Raises ProviderError when CUDA is wanted strictly and the build has none. `auto`
    takes what the build has: with the CPU wheel that is the CPU, even under `strict`.
    """
    if requested is Provider.CPU:
        return ProviderPlan(requested, strict, [CPU])
    ort = load_onnxruntime()
    if CUDA in (ort.get_available_providers() if available is None else available):
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds CUDA and cuDNN in pip's nvidia-* packages
        return ProviderPlan(requested, strict, [(CUDA, cuda_options(gpu_mem_limit)), CPU])
    if strict and requested is Provider.CUDA:
        raise ProviderError(
            f"provider 'cuda' is wanted strictly, but the installed onnxruntime has no {CUDA}. "
            f"Install the GPU build: `{GPU_COMMAND}`, or start with --provider auto."
        )
    _fall_back(requested, FallbackReason.CPU_BUILD, metrics)
    return ProviderPlan(requested, strict, [CPU])


def cuda_options(gpu_mem_limit: int = 0) -> dict[str, str]:
    """Options of the CUDA provider; `gpu_mem_limit` in bytes, 0 for none."""
    options = {
        # EXHAUSTIVE tries every algorithm for every new shape, seconds each: no good with dynamic
        # batches.
        "cudnn_conv_algo_search": "HEURISTIC",
        # The default doubles the arena, and then a neighbour on the same card runs out of memory.
        "arena_extend_strategy": "kSameAsRequested",
    }
    if gpu_mem_limit:
        options["gpu_mem_limit"] = str(gpu_mem_limit)
    return options


def confirm_provider(plan: ProviderPlan, used: Sequence[str], model: str, metrics: Metrics) -> str:
    """The provider that really runs `model`, given `used` = session.get_providers().

    Raises ProviderError under `strict` when it is not the planned one; else the fall is logged and
    counted.
    """
    wanted = CUDA if plan.wants_cuda else CPU
    first = used[0] if used else "none"
    if first == wanted:
        return first
    if plan.strict:
        raise ProviderError(
            f"model {model!r} should run on {wanted} but onnxruntime uses {first}. "
            "Check the driver (`nvidia-smi`) and the CUDA and cuDNN libraries "
            '(`pip install "velatura-server[gpu,cuda]"`), '
            "or start without the strict flag to accept the CPU."
        )
    _fall_back(plan.requested, FallbackReason.CUDA_FAILED, metrics, model)
    return first


def _fall_back(
    requested: Provider, reason: FallbackReason, metrics: Metrics, model: str = ""
) -> None:
    metrics.models.provider_fallback.labels(requested=requested, reason=reason).inc()
    # With `auto` a CPU build is a choice, not a fault; everything else deserves an operator's eye.
    expected = requested is Provider.AUTO and reason is FallbackReason.CPU_BUILD
    log.log(
        logging.INFO if expected else logging.WARNING,
        "provider %s: running on the CPU (%s%s)",
        requested,
        reason,
        f", model {model}" if model else "",
    )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
