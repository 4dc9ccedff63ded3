"""Memory and use of NVIDIA's GPUs, read at every scrape where its library NVML is there.

The package `nvidia-ml-py` comes with the extra `[gpu]`. Without it, without a driver or without a
card there are no series, and nobody is told: a server on CPUs is nothing unusual.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)


def watch_gpus(
    registry: CollectorRegistry, load: Callable[[str], Any] = importlib.import_module
) -> bool:
    """Add the GPUs' metrics to `registry`; False where there are none. `load` is for tests."""
    try:
        nvml = load("pynvml")
    except ImportError:
        return False
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        log.debug("no GPUs to watch: %s", error)
        return False
    if handles:
        registry.register(GpuCollector(nvml, handles))
    return bool(handles)


class GpuCollector(Collector):
    """The state of each card now. A card that cannot be asked has no samples until it can again."""

    def __init__(self, nvml: Any, handles: list[Any]) -> None:
        self._nvml = nvml
        self._handles = handles
        self._lost: set[str] = set()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read every card; called by the registry, from any thread."""
        used = GaugeMetricFamily(
            "velatura_gpu_memory_used_bytes",
            "GPU memory in use, by all processes, bytes.",
            labels=["gpu"],
        )
        total = GaugeMetricFamily(
            "velatura_gpu_memory_total_bytes", "GPU memory, bytes.", labels=["gpu"]
        )
        busy = GaugeMetricFamily(
            "velatura_gpu_utilization_ratio",
            "Share of the last moments in which the GPU ran something, 0 to 1.",
            labels=["gpu"],
        )
        info = GaugeMetricFamily(
            "velatura_gpu_info",
            "Always 1; the labels describe a GPU.",
            labels=["gpu", "name", "uuid"],
        )
        for index, handle in enumerate(self._handles):
            gpu = str(index)
            try:
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
                name = _text(self._nvml.nvmlDeviceGetName(handle))
                uuid = _text(self._nvml.nvmlDeviceGetUUID(handle))
            except self._nvml.NVMLError as error:
                self._say_lost(gpu, error)
                continue
            self._lost.discard(gpu)
            used.add_metric([gpu], memory.used)
            total.add_metric([gpu], memory.total)
            busy.add_metric([gpu], rates.gpu / 100)
            info.add_metric([gpu, name, uuid], 1)
        yield from (used, total, busy, info)

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering asks no card."""
        return []

    def _say_lost(self, gpu: str, error: Exception) -> None:
        if gpu not in self._lost:  # once, and not at every scrape
            log.warning("GPU %s does not answer NVML: %s", gpu, error)
        self._lost.add(gpu)


def _text(value: str | bytes) -> str:
    """Older bindings answer with bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
