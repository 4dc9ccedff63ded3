"""How the operator wants the networks to be run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.openvino import OpenvinoOptions, Precision
from velatura.server.engine.providers import Provider
from velatura.server.engine.tensorrt import TensorrtOptions
from velatura.server.engine.warming import UNIT_EXTENT, Sizes
from velatura.v1.bundle_pb2 import ModelEntry

# The larger of the two batches that a lane is started with.
BRIEF_BATCH = 4


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run the networks. Sizes are per network; a manifest may lower `max_batch_size`, never
    raise it.
    """

    provider: Provider = Provider.AUTO
    strict: bool = False
    gpu_mem_limit: int = 0  # bytes, 0 for none
    cuda_graphs: bool = False
    tensorrt_cache: Path | None = None
    tensorrt_fp16: bool = False
    openvino_precision: Precision = Precision.F32
    intra_threads: int = 0  # 0: by load, or with `instances` all that affinity and cgroup allow
    instances: int = 0  # batches of one network at a time; 0: by load
    max_batch_size: int = 8
    max_batch_elements: int = 6_291_456  # input elements: 8 pictures of 512×512×3
    pad_sizes: tuple[int, ...] = ()  # the only sizes of batches, ascending; empty for any
    warm_sides: tuple[int, ...] = (UNIT_EXTENT,)  # of pictures, where their size is free
    max_queue_items: int = 256
    max_queue_bytes: int = 512 * 1024 * 1024
    max_backlog_bytes: int | None = None  # of all networks together
    max_backlog_pixels: int | None = None
    max_queue_delay_s: float = 0.0
    refuse_late: bool = True  # at arrival, what by the estimate cannot meet its deadline
    failure_threshold: int = 3  # failures in a row that cause a probe
    probe_interval_s: float = 5.0
    stall_timeout_s: float = 60.0  # a run that lasts longer makes its network not ready

    def limits(self, entry: ModelEntry) -> BatchLimits:
        """Limits of one network."""
        most = min(self.max_batch_size, entry.max_batch_size or self.max_batch_size)
        return BatchLimits(
            max_batch_size=most,
            max_batch_elements=self.max_batch_elements,
            max_queue_items=self.max_queue_items,
            max_queue_bytes=self.max_queue_bytes,
            max_queue_delay_s=self.max_queue_delay_s,
            instances=max(1, self.instances),
            pad_sizes=tuple(size for size in self.pad_sizes if size <= most),
            refuse_late=self.refuse_late,
        )

    def sizes(self, entry: ModelEntry, *, every: bool) -> Sizes:
        """What to warm one network up with; `every` batch size that can come, rather than enough
        to know the costs.
        """
        limits = self.limits(entry)
        batches = limits.pad_sizes
        if not batches and every:
            batches = tuple(range(1, limits.max_batch_size + 1))
        return Sizes(limits.max_batch_size, batches, self.warm_sides)

    def brief_sizes(self, entry: ModelEntry) -> Sizes:
        """Enough to choose between lanes from the start: runs teach the rest, and on the CPU no
        size has to be prepared.
        """
        sizes = self.sizes(entry, every=False)
        return replace(sizes, most=min(sizes.most, BRIEF_BATCH), brief=True)

    def tensorrt(self) -> TensorrtOptions:
        """The part that is TensorRT's."""
        return TensorrtOptions(
            cache=self.tensorrt_cache, fp16=self.tensorrt_fp16, cuda_graphs=self.cuda_graphs
        )

    def openvino(self) -> OpenvinoOptions:
        """The part that is OpenVINO's."""
        return OpenvinoOptions(self.openvino_precision, self.instances)
