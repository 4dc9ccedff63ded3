"""One onnxruntime session per network: options, running with checked outputs, and warming up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from velatura.server.engine.errors import DeviceFailed, FailureKind
from velatura.server.engine.finite import is_finite
from velatura.server.engine.providers import ProviderPlan, confirm_provider, load_onnxruntime
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry, TensorSpec

Tensors: TypeAlias = dict[str, NDArray[Any]]

# Free extents (height and width of style networks) during warm-up; real sizes are learned on the
# way.
WARM_UP_EXTENT = 128
# In-between batch sizes are warmed too where one item takes less than this.
CHEAP_SECONDS = 0.02
# A run that takes longer is not repeated for the sake of a better measurement.
DEAR_SECONDS = 1.0
# Inputs with more elements than this (a 1.3-megapixel picture) give the arena's memory back after
# the run: it would otherwise keep the gigabytes of the largest picture ever seen.
LARGE_RUN_ELEMENTS = 4_000_000

_DEVICE_WORDS = ("CUDA", "CUDNN", "CUBLAS")


class Session(Protocol):
    """A loaded network; `run` blocks and is called from worker threads, `instances` of them at a
    time.
    """

    @property
    def provider(self) -> str:
        """Execution provider that really runs it, such as "CPUExecutionProvider"."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Outputs by name; all arrays lead with the same batch axis. Raises DeviceFailed."""


class SessionFactory(Protocol):
    """How the engine opens a network; tests put in networks that fail."""

    def __call__(
        self, entry: ModelEntry, file: Path, plan: ProviderPlan, threads: int, metrics: Metrics
    ) -> Session: ...


class OrtSession:
    """A network on onnxruntime."""

    def __init__(
        self, entry: ModelEntry, file: Path, plan: ProviderPlan, threads: int, metrics: Metrics
    ) -> None:
        """Open `file` with `threads` intra-op threads; raises ProviderError or DeviceFailed."""
        ort = load_onnxruntime()
        self._name = entry.name
        self._outputs = [spec.name for spec in entry.outputs]
        try:
            self._session = ort.InferenceSession(
                str(file), sess_options=session_options(entry, threads), providers=plan.providers
            )
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise DeviceFailed(entry.name, FailureKind.EXECUTION, str(error)) from error
        self._provider = confirm_provider(plan, self._session.get_providers(), entry.name, metrics)
        self._shrinking = ort.RunOptions()
        device = "gpu:0" if plan.wants_cuda and self._provider.startswith("CUDA") else "cpu:0"
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", device)

    @property
    def provider(self) -> str:
        """First of session.get_providers()."""
        return self._provider

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Outputs by name; raises DeviceFailed, also where an output is not finite."""
        large = max(array.size for array in inputs.values()) > LARGE_RUN_ELEMENTS
        try:
            values = self._session.run(
                self._outputs, dict(inputs), self._shrinking if large else None
            )
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise DeviceFailed(self._name, _kind_of(error), str(error)) from error
        outputs: Tensors = dict(zip(self._outputs, values, strict=True))
        for name, array in outputs.items():
            if not is_finite(array):
                raise DeviceFailed(
                    self._name, FailureKind.NON_FINITE, f"output {name!r} has NaN or infinity"
                )
        return outputs


def session_options(entry: ModelEntry, threads: int) -> Any:
    """onnxruntime's SessionOptions for a server that shares its CPUs with decoding, encoding and
    gRPC.
    """
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads win microseconds a run and take the CPUs from everybody else in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Memory plans are kept per input shape: with free sizes they would pile up for ever.
    options.enable_mem_pattern = not any(_free_axes(spec) for spec in entry.inputs)
    options.log_severity_level = 3
    return options


def sample_inputs(entry: ModelEntry, batch: int) -> Tensors:
    """Plausible inputs for `batch` items, the same at every call: for warm-up and for probes of
    health.
    """
    rng = np.random.default_rng(0)
    samples: Tensors = {}
    for spec in entry.inputs:
        shape = (batch, *_warm_up_shape(spec))
        dtype = np.dtype(spec.dtype)
        if dtype.kind != "f":
            samples[spec.name] = np.zeros(shape, dtype)
        elif spec.range_max > spec.range_min:
            samples[spec.name] = rng.uniform(spec.range_min, spec.range_max, shape).astype(dtype)
        else:
            samples[spec.name] = rng.standard_normal(shape).astype(dtype)
    return samples


def item_work(entry: ModelEntry, shapes: Mapping[str, Sequence[int]]) -> float:
    """What one item costs in units of a warm-up item, by the elements of inputs with free extents;
    1 without any.

    `shapes` holds the inputs' shapes, batch axis included.
    """
    free = [spec for spec in entry.inputs if _free_axes(spec)]
    if not free:
        return 1.0
    elements = sum(math.prod(shapes[spec.name][1:]) for spec in free)
    return elements / sum(math.prod(_warm_up_shape(spec)) for spec in free)


def warm_up(session: Session, entry: ModelEntry, max_batch: int) -> list[tuple[float, float]]:
    """Run batches of 1 and `max_batch`, and powers of two in between where they are cheap; raises
    DeviceFailed.

    Returns (work, seconds) of each, without the first run's allocations: what the cost model starts
    from.
    """
    seconds = _timed(session, sample_inputs(entry, 1))
    timings = [(1.0, seconds)]
    for batch in _other_sizes(max_batch, seconds < CHEAP_SECONDS):
        timings.append((float(batch), _timed(session, sample_inputs(entry, batch))))
    return timings


def _other_sizes(max_batch: int, cheap: bool) -> Iterable[int]:
    between = [1 << power for power in range(1, max_batch.bit_length())] if cheap else []
    return sorted({*between, max_batch} - {1})


def _timed(session: Session, inputs: Tensors) -> float:
    for _ in range(2):
        started = time.monotonic()
        session.run(inputs)
        seconds = time.monotonic() - started
        if seconds > DEAR_SECONDS:
            break
    return seconds


def _free_axes(spec: TensorSpec) -> list[int]:
    return [axis for axis, extent in enumerate(spec.shape) if axis and extent == -1]


def _warm_up_shape(spec: TensorSpec) -> tuple[int, ...]:
    step = max(1, spec.multiple_of)
    free = math.ceil(WARM_UP_EXTENT / step) * step
    return tuple(free if extent == -1 else int(extent) for extent in list(spec.shape)[1:])


def _kind_of(error: Exception) -> FailureKind:
    """CUDA's faults arrive as plain failures with the library's name in the text."""
    text = str(error).upper()
    lost = type(error).__name__ == "DeviceReset" or any(word in text for word in _DEVICE_WORDS)
    return FailureKind.DEVICE_LOST if lost else FailureKind.EXECUTION
