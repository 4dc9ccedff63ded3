"""A network on onnxruntime: options, and running with checked outputs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from velatura.server.engine.cuda_graphs import CudaGraphs
from velatura.server.engine.errors import DeviceFailed, FailureKind
from velatura.server.engine.finite import is_finite
from velatura.server.engine.openvino import LARGEST_ITEM_ELEMENTS, used_providers
from velatura.server.engine.providers import (
    ON_CPUS,
    ProviderPlan,
    confirm_provider,
    load_onnxruntime,
)
from velatura.server.engine.warming import free_axes
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry

Tensors: TypeAlias = dict[str, NDArray[Any]]

# Inputs with more elements than this (a 1.3-megapixel picture) give the arena's memory back after
# the run: it would otherwise keep the gigabytes of the largest picture ever seen.
LARGE_RUN_ELEMENTS = 4_000_000

# Of OrtArenaCfg; the other strategy doubles what it takes each time.
SAME_AS_REQUESTED = 1

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
        options = session_options(entry, threads)
        try:
            if plan.openvino is None:
                self._session = ort.InferenceSession(str(file), options, providers=plan.providers)
                used = self._session.get_providers()
            else:
                plan.openvino.join(options, ort, threads)
                self._session = ort.InferenceSession(str(file), options)
                used = used_providers(self._session)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise DeviceFailed(entry.name, FailureKind.EXECUTION, str(error)) from error
        self._provider = confirm_provider(plan, used, entry.name, metrics)
        self._shrinking = ort.RunOptions()
        on_gpu = self._provider not in ON_CPUS
        device = "gpu:0" if on_gpu else "cpu:0"
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", device)
        self._graphs = CudaGraphs(self._session, ort) if plan.cuda_graphs and on_gpu else None
        self._open_aside = functools.partial(
            OrtSession, entry, file, plan.on_cpu(), threads, metrics
        )
        self._one_by_one = plan.openvino is not None
        self._aside: OrtSession | None = None
        self._opening_aside = threading.Lock()

    @property
    def provider(self) -> str:
        """First of session.get_providers()."""
        return self._provider

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Outputs by name; raises DeviceFailed, also where an output is not finite."""
        return self._run_items(inputs) if self._one_by_one else self._run(inputs)

    def _run_items(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """OpenVINO's way: on one thread a batch gains nothing there, and a batch of another size
        than the last costs up to half an item's time for getting ready.
        """
        items = len(next(iter(inputs.values())))
        if max(array.size for array in inputs.values()) > items * LARGEST_ITEM_ELEMENTS:
            return self._run_aside(inputs)
        parts = [
            self._run({name: array[item : item + 1] for name, array in inputs.items()})
            for item in range(items)
        ]
        if items == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        large = max(array.size for array in inputs.values()) > LARGE_RUN_ELEMENTS
        try:
            if self._graphs is not None:
                values = self._graphs.run(self._outputs, inputs)
            else:
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

    def _run_aside(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """On onnxruntime's own kernels, which are made ready when first needed."""
        with self._opening_aside:
            if self._aside is None:
                self._aside = self._open_aside()
        return self._aside.run(inputs)


@functools.cache
def _share_arena() -> None:
    """One arena for the activations of all sessions of the process. Each with its own would keep
    what its largest batch ever took, though few of them run at a time.
    """
    ort = load_onnxruntime()
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    arena = ort.OrtArenaCfg({"arena_extend_strategy": SAME_AS_REQUESTED})
    ort.create_and_register_allocator(memory, arena)


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
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Threads that spin after a run take the CPUs from everybody else; within one they save its
    # operators a tenth of their time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Memory plans are kept per input shape: with free sizes they would pile up for ever.
    options.enable_mem_pattern = not any(free_axes(spec) for spec in entry.inputs)
    options.log_severity_level = 3
    return options


def _kind_of(error: Exception) -> FailureKind:
    """CUDA's faults arrive as plain failures with the library's name in the text."""
    text = str(error).upper()
    lost = type(error).__name__ == "DeviceReset" or any(word in text for word in _DEVICE_WORDS)
    return FailureKind.DEVICE_LOST if lost else FailureKind.EXECUTION
