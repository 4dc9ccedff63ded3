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
from velatura.server.engine.openvino import (
    OPENVINO,
    PLUGIN_COMMAND,
    NoOpenvino,
    OpenvinoOptions,
    Precision,
    computes_in,
    cpu_device,
)
from velatura.server.engine.tensorrt import TensorrtOptions, profile
from velatura.server.engine.warming import Sizes
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry, Role

log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
# Those that compute on the CPUs of the machine, which decoding, encoding and gRPC want as well.
ON_CPUS = frozenset({CPU, OPENVINO})

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
    OPENVINO = "openvino"


class FallbackReason(StrEnum):
    """Why a lesser provider, or a slower precision, was used: the label of
    velatura_provider_fallback_total.
    """

    CPU_BUILD = "cpu_build"
    CUDA_FAILED = "cuda_failed"
    NO_TENSORRT = "no_tensorrt"  # the build does not have it
    TENSORRT_FAILED = "tensorrt_failed"
    NO_OPENVINO = "no_openvino"  # the plugin is not installed
    OPENVINO_FAILED = "openvino_failed"
    OPENVINO_INEXACT = "openvino_inexact"  # other outputs than onnxruntime's own
    NO_BF16 = "no_bf16"  # the CPU has no instructions for it
    BF16_INEXACT = "bf16_inexact"  # outputs too far from float32's


@dataclass(frozen=True, slots=True)
class ProviderPlan:
    """What to hand to onnxruntime, and what must come of it. `cuda_graphs` asks for runs by IO
    binding, which captured graphs need. `openvino` is there where OpenVINO is wanted.
    """

    requested: Provider
    strict: bool
    providers: ProviderList
    cuda_graphs: bool = False
    openvino: OpenvinoOptions | None = None

    @property
    def wanted(self) -> str:
        """The provider that is first in the list."""
        first = self.providers[0]
        return first if isinstance(first, str) else first[0]

    @property
    def wants_gpu(self) -> bool:
        """Whether networks are to run on a GPU."""
        return self.wanted not in ON_CPUS

    def on_cpu(self) -> ProviderPlan:
        """The plan without OpenVINO."""
        return replace(self, providers=[CPU], openvino=None)

    def in_float32(self) -> ProviderPlan:
        """The plan with OpenVINO, where that is wanted, in float32."""
        if self.openvino is None:
            return self
        return replace(self, openvino=replace(self.openvino, precision=Precision.F32))

    def fitted(self, entry: ModelEntry, sizes: Sizes) -> ProviderPlan:
        """The plan for one network: TensorRT wants to know its shapes, and latents are mapped in
        float32: all that follows hangs on them, and there is no time to win.
        """
        if entry.role == Role.ROLE_MAPPING and self.wanted == OPENVINO:
            return self.in_float32()
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
    openvino: OpenvinoOptions | None = None,
    available: Sequence[str] | None = None,
) -> ProviderPlan:
    """The providers to ask onnxruntime for.

    `gpu_mem_limit` is in bytes, 0 for none. `available` is for tests; by default what the installed
    build can do. Raises ProviderError when a GPU is wanted strictly and the build cannot. `auto`
    takes CUDA or what the build has: with the CPU wheel that is the CPU, even under `strict`.
    TensorRT is taken only where it is asked for: its engines take minutes to build. So is OpenVINO,
    which raises where its plugin or the CPU cannot.
    """
    if requested is Provider.CPU:
        return ProviderPlan(requested, strict, [CPU])
    if requested is Provider.OPENVINO:
        return _plan_openvino(strict, metrics, openvino or OpenvinoOptions())
    ort = load_onnxruntime()
    found = ort.get_available_providers() if available is None else available
    wanted = TENSORRT if requested is Provider.TENSORRT else CUDA
    if wanted not in found and strict and requested is not Provider.AUTO:
        raise ProviderError(
            f"provider {requested.value!r} is wanted strictly, but the installed onnxruntime has "
            f"no {wanted}. Install the GPU build: `{GPU_COMMAND}`, or start with --provider auto."
        )
    if CUDA not in found:
        fall_back(requested, FallbackReason.CPU_BUILD, metrics)
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
        fall_back(requested, FallbackReason.NO_TENSORRT, metrics)
    return ProviderPlan(requested, strict, providers, cuda_graphs)


def _plan_openvino(strict: bool, metrics: Metrics, options: OpenvinoOptions) -> ProviderPlan:
    wanted = ProviderPlan(Provider.OPENVINO, strict, [OPENVINO, CPU], openvino=options)
    try:
        device = cpu_device(load_onnxruntime())
    except NoOpenvino as error:
        if strict:
            raise ProviderError(
                f"provider 'openvino' is wanted strictly, but {error} "
                "Or start without the strict flag to accept onnxruntime's own kernels."
            ) from error
        reason = FallbackReason.OPENVINO_FAILED if error.installed else FallbackReason.NO_OPENVINO
        fall_back(Provider.OPENVINO, reason, metrics, why=str(error))
        return wanted.on_cpu()
    if computes_in(device, options.precision):
        return wanted
    if strict:
        raise ProviderError(
            f"openvino_precision {options.precision.value!r} is wanted strictly, but this CPU has "
            "no instructions for it (avx512_bf16 or amx_bf16). "
            "Start with --openvino-precision f32, or without the strict flag."
        )
    fall_back(Provider.OPENVINO, FallbackReason.NO_BF16, metrics, instead=f"{OPENVINO} in f32")
    return wanted.in_float32()


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
        if wanted == OPENVINO:
            raise ProviderError(
                f"model {model!r} should run on {wanted} but onnxruntime uses {first}. "
                f"Install the plugin and its onnxruntime again (`{PLUGIN_COMMAND} --upgrade`), "
                "or start without the strict flag to accept that."
            )
        raise ProviderError(
            f"model {model!r} should run on {wanted} but onnxruntime uses {first}. "
            "Check the driver (`nvidia-smi`) and the CUDA and cuDNN libraries "
            '(`pip install "velatura-server[gpu,cuda]"`), '
            "or start without the strict flag to accept the CPU."
        )
    fall_back(plan.requested, _FAILED[wanted], metrics, model, first)
    return first


_FAILED = {
    CUDA: FallbackReason.CUDA_FAILED,
    TENSORRT: FallbackReason.TENSORRT_FAILED,
    OPENVINO: FallbackReason.OPENVINO_FAILED,
}


def fall_back(
    requested: Provider,
    reason: FallbackReason,
    metrics: Metrics,
    model: str = "",
    instead: str = "",
    why: str = "",
) -> None:
    """Count and log that `instead` runs `model`: by default the CPU, and all networks."""
    metrics.models.provider_fallback.labels(requested=requested, reason=reason).inc()
    # With `auto` a CPU build is a choice, not a fault; everything else deserves an operator's eye.
    expected = requested is Provider.AUTO and reason is FallbackReason.CPU_BUILD
    log.log(
        logging.INFO if expected else logging.WARNING,
        "provider %s: running on %s (%s%s%s)",
        requested,
        instead or (CUDA if reason is FallbackReason.NO_TENSORRT else "the CPU"),
        reason,
        f", model {model}" if model else "",
        f": {why}" if why else "",
    )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
