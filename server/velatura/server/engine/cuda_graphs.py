"""CUDA graphs through onnxruntime's IO binding: one captured graph for every batch × shape.

A graph replays kernels on the very addresses that it was captured with, so every bucket keeps its
own buffers on the device, and inputs are copied into them. It pays where launching kernels takes
longer than running them: small networks, small batches.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from numpy.typing import NDArray

# Buckets that keep graph and buffers. Shapes beyond these run without a graph: pictures of any size
# would otherwise fill the device's memory.
MOST_GRAPHS = 32
# onnxruntime's id of a run that must not be captured.
NO_GRAPH = -1
GRAPH_ID = "gpu_graph_id"


@dataclass(frozen=True, slots=True)
class _Captured:
    binding: Any
    inputs: dict[str, Any]  # OrtValues on the device
    options: Any


class CudaGraphs:
    """Runs one onnxruntime session; `ort` is the onnxruntime module."""

    def __init__(self, session: Any, ort: Any) -> None:
        self._session = session
        self._ort = ort
        self._captured: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._plain = ort.RunOptions()
        self._plain.add_run_config_entry(GRAPH_ID, str(NO_GRAPH))
        # Buffers and graphs are no use to two runs at a time.
        self._lock = Lock()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Values of `outputs`, in their order; the first run of a bucket captures its graph."""
        bucket = tuple(
            sorted((name, array.dtype.str, array.shape) for name, array in inputs.items())
        )
        with self._lock:
            captured = self._captured.get(bucket)
            if captured is not None:
                for name, array in inputs.items():
                    captured.inputs[name].update_inplace(array)
            elif len(self._captured) < MOST_GRAPHS:
                captured = self._bind(outputs, inputs)
                self._captured[bucket] = captured
            else:
                values: list[NDArray[Any]] = self._session.run(
                    list(outputs), dict(inputs), self._plain
                )
                return values
            self._session.run_with_iobinding(captured.binding, captured.options)
            copied: list[NDArray[Any]] = captured.binding.copy_outputs_to_cpu()
            return copied

    def _bind(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> _Captured:
        binding = self._session.io_binding()
        placed = {
            name: self._ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
            for name, array in inputs.items()
        }
        for name, value in placed.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in self._output_buffers(outputs, inputs).items():
            binding.bind_ortvalue_output(name, value)
        options = self._ort.RunOptions()
        options.add_run_config_entry(GRAPH_ID, str(len(self._captured) + 1))
        return _Captured(binding, placed, options)

    def _output_buffers(
        self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, Any]:
        """Buffers on the device. A run without a graph tells the outputs' shapes."""
        values = self._session.run(list(outputs), dict(inputs), self._plain)
        return {
            name: self._ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0)
            for name, value in zip(outputs, values, strict=True)
        }
