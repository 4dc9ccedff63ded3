"""Options of onnxruntime's TensorRT provider.

TensorRT builds an engine for a range of shapes, which takes minutes; so engines are kept in a
directory, and the ranges are told from the start: an engine that has to be built while a request
waits is a timeout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from velatura.server.engine.warming import Sizes, item_shape
from velatura.v1.bundle_pb2 import ModelEntry


@dataclass(frozen=True, slots=True)
class TensorrtOptions:
    """`cache` is the directory for engines, None for none; `workspace` in bytes, 0 for TensorRT's
    own limit.
    """

    cache: Path | None = None
    fp16: bool = False
    cuda_graphs: bool = False
    workspace: int = 0

    def provider_options(self) -> dict[str, str]:
        """What is the same for all networks."""
        options = {"trt_fp16_enable": _flag(self.fp16)}
        if self.cache is not None:
            options |= {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": str(self.cache),
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": str(self.cache),
            }
        if self.cuda_graphs:
            options["trt_cuda_graph_enable"] = "1"
        if self.workspace:
            options["trt_max_workspace_size"] = str(self.workspace)
        return options


def profile(entry: ModelEntry, sizes: Sizes) -> dict[str, str]:
    """The shapes that an engine of one network is built for: from one item of the smallest side to
    the largest batch of the largest side, best at the largest batch of the first side.
    """
    smallest, largest = min(sizes.sides), max(sizes.sides)
    most = max([sizes.most, *sizes.batches])
    return {
        "trt_profile_min_shapes": _shapes(entry, 1, smallest),
        "trt_profile_opt_shapes": _shapes(entry, most, sizes.sides[0]),
        "trt_profile_max_shapes": _shapes(entry, most, largest),
    }


def _shapes(entry: ModelEntry, batch: int, side: int) -> str:
    """As onnxruntime reads them: name:1x3x128x128, comma-separated."""
    return ",".join(
        f"{spec.name}:{'x'.join(map(str, (batch, *item_shape(spec, side))))}"
        for spec in entry.inputs
    )


def _flag(value: bool) -> str:
    return "1" if value else "0"
