"""GPUs through NVML: a module that stands in for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from velatura.server.observability.gpu import watch_gpus


class NVMLError(Exception):
    pass


class Nvml:
    """Two cards, of which one can be made to fall off the bus."""

    NVMLError = NVMLError

    def __init__(self, cards: int = 2, driver: bool = True) -> None:
        self.cards = cards
        self.driver = driver
        self.lost: set[int] = set()

    def nvmlInit(self) -> None:
        if not self.driver:
            raise NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:
        return self.cards

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, card: int) -> Any:
        if card in self.lost:
            raise NVMLError("GPU is lost")
        return SimpleNamespace(used=(card + 1) << 30, total=16 << 30)

    def nvmlDeviceGetUtilizationRates(self, _card: int) -> Any:
        return SimpleNamespace(gpu=75, memory=10)

    def nvmlDeviceGetName(self, card: int) -> str | bytes:
        return b"Card" if card else "Card"

    def nvmlDeviceGetUUID(self, card: int) -> str:
        return f"GPU-{card}"


def values(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels["gpu"]): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_each_card_has_its_series() -> None:
    registry = CollectorRegistry()
    assert watch_gpus(registry, {"pynvml": Nvml()}.__getitem__)
    found = values(registry)
    assert found["velatura_gpu_memory_used_bytes", "1"] == 2 << 30
    assert found["velatura_gpu_memory_total_bytes", "0"] == 16 << 30
    assert found["velatura_gpu_utilization_ratio", "0"] == 0.75
    labels = {"gpu": "1", "name": "Card", "uuid": "GPU-1"}
    assert registry.get_sample_value("velatura_gpu_info", labels) == 1


def test_a_lost_card_is_left_out_said_once_and_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nvml, registry = Nvml(), CollectorRegistry()
    watch_gpus(registry, lambda _: nvml)
    nvml.lost.add(1)
    for _ in range(3):
        assert {gpu for _, gpu in values(registry)} == {"0"}
    assert [record.message for record in caplog.records] == [
        "GPU 1 does not answer NVML: GPU is lost"
    ]
    nvml.lost.clear()
    assert {gpu for _, gpu in values(registry)} == {"0", "1"}


def missing(name: str) -> Any:
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("load", [missing, lambda _: Nvml(driver=False), lambda _: Nvml(cards=0)])
def test_no_library_no_driver_or_no_card_is_no_series(load: Any) -> None:
    registry = CollectorRegistry()
    assert not watch_gpus(registry, load)
    assert values(registry) == {}
