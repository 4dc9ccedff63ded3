"""Chooses onnxruntime's execution provider and tells the truth about the one that is really used.

onnxruntime itself falls back to the CPU with no more than a line on stderr; here the fall is an
error under `strict`, and a log record and a counter otherwise.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import metadata
from typing import Any, TypeAlias

from velatura.server.engine.errors import ProviderError
from velatura.server.engine.tensorrt import TensorrtOptions, profile
from velatura.server.engine.warming import Sizes
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry

log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

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
    TENSORRT = "tensorrt"


class FallbackReason(StrEnum):
    """Why a lesser provider was used: the label of velatura_provider_fallback_total."""

    CPU_BUILD = "cpu_build"
    CUDA_FAILED = "cuda_failed"
    NO_TENSORRT = "no_tensorrt"  # the build does not have it
    TENSORRT_FAILED = "tensorrt_failed"


@dataclass(frozen=True, slots=True)
class ProviderPlan:
    """What to hand to onnxruntime, and what must come of it. `cuda_graphs` asks for runs by IO
    binding, which captured graphs need.
    """

    requested: Provider
    strict: bool
    providers: ProviderList
    cuda_graphs: bool = False

    @property
    def wanted(self) -> str:
        """The provider that is first in the list."""
        first = self.providers[0]
        return first if isinstance(first, str) else first[0]

    @property
    def wants_gpu(self) -> bool:
        """Whether networks are to run on a GPU."""
        return self.wanted != CPU

    def fitted(self, entry: ModelEntry, sizes: Sizes) -> ProviderPlan:
        """The plan for one network: TensorRT wants to know its shapes."""
        if self.wanted != TENSORRT:
            return self
        providers = [
            (each[0], {**each[1], **profile(entry, sizes)})
            if isinstance(each, tuple) and each[0] == TENSORRT
            else each
            for each in self.providers
        ]
        return replace(self, providers=providers)


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
    cuda_graphs: bool = False,
    tensorrt: TensorrtOptions | None = None,
    available: Sequence[str] | None = None,
) -> ProviderPlan:
    """The providers to ask onnxruntime for.

    `gpu_mem_limit` is in bytes, 0 for none. `available` is for tests; by default what the installed
    build can do. Raises ProviderError when a GPU is wanted strictly and the build cannot. `auto`
    takes CUDA or what the build has: with the CPU wheel that is the CPU, even under `strict`.
    TensorRT is taken only where it is asked for: its engines take minutes to build.
    """
    if requested is Provider.CPU:
        return ProviderPlan(requested, strict, [CPU])
    ort = load_onnxruntime()
    found = ort.get_available_providers() if available is None else available
    wanted = TENSORRT if requested is Provider.TENSORRT else CUDA
    if wanted not in found and strict and requested is not Provider.AUTO:
        raise ProviderError(
            f"provider {requested.value!r} is wanted strictly, but the installed onnxruntime has "
            f"no {wanted}. Install the GPU build: `{GPU_COMMAND}`, or start with --provider auto."
        )
    if CUDA not in found:
        _fall_back(requested, FallbackReason.CPU_BUILD, metrics)
        return ProviderPlan(requested, strict, [CPU])
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA and cuDNN in pip's nvidia-* packages
    providers: ProviderList = [(CUDA, cuda_options(gpu_mem_limit, cuda_graphs)), CPU]
    if requested is Provider.TENSORRT:
        if TENSORRT in found:
            # What TensorRT cannot take goes to CUDA; graphs are captured by one of them alone.
            options = (tensorrt or TensorrtOptions()).provider_options()
            fallback = (CUDA, cuda_options(gpu_mem_limit))
            return ProviderPlan(requested, strict, [(TENSORRT, options), fallback, CPU])
        _fall_back(requested, FallbackReason.NO_TENSORRT, metrics)
    return ProviderPlan(requested, strict, providers, cuda_graphs)


def cuda_options(gpu_mem_limit: int = 0, cuda_graphs: bool = False) -> dict[str, str]:
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
    if cuda_graphs:
        options["enable_cuda_graph"] = "1"
    return options


def confirm_provider(plan: ProviderPlan, used: Sequence[str], model: str, metrics: Metrics) -> str:
    """The provider that really runs `model`, given `used` = session.get_providers().

    Raises ProviderError under `strict` when it is not the planned one; else the fall is logged and
    counted.
    """
    wanted = plan.wanted
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
    failed = FallbackReason.TENSORRT_FAILED if wanted == TENSORRT else FallbackReason.CUDA_FAILED
    _fall_back(plan.requested, failed, metrics, model, first)
    return first


def _fall_back(
    requested: Provider,
    reason: FallbackReason,
    metrics: Metrics,
    model: str = "",
    instead: str = "",
) -> None:
    metrics.models.provider_fallback.labels(requested=requested, reason=reason).inc()
    # With `auto` a CPU build is a choice, not a fault; everything else deserves an operator's eye.
    expected = requested is Provider.AUTO and reason is FallbackReason.CPU_BUILD
    log.log(
        logging.INFO if expected else logging.WARNING,
        "provider %s: running on %s (%s%s)",
        requested,
        instead or (CUDA if reason is FallbackReason.NO_TENSORRT else "the CPU"),
        reason,
        f", model {model}" if model else "",
    )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
