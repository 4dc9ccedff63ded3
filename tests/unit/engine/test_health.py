"""Failures raise a suspicion; only a failing probe takes a network out of service, and a good one
brings it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from velatura.server.engine.errors import DeviceFailed, FailureKind
from velatura.server.engine.health import ModelHealth


class Canary:
    """A probe that a test turns good and bad."""

    def __init__(self) -> None:
        self.good = True
        self.runs = 0

    async def __call__(self) -> None:
        self.runs += 1
        if not self.good:
            raise failure()


def failure(kind: FailureKind = FailureKind.EXECUTION) -> DeviceFailed:
    return DeviceFailed("m", kind, "no")


@pytest.fixture
def canary() -> Canary:
    return Canary()


@pytest.fixture
async def health(canary: Canary) -> AsyncIterator[ModelHealth]:
    health = ModelHealth("m", canary, threshold=3, interval_s=0.01)
    yield health
    await health.close()


async def test_failures_of_bad_inputs_do_not_matter(health: ModelHealth, canary: Canary) -> None:
    for _ in range(10):
        health.failed(failure(FailureKind.NON_FINITE))
        await asyncio.sleep(0.002)
    assert health.healthy
    assert canary.runs >= 1


async def test_few_failures_are_not_probed(health: ModelHealth, canary: Canary) -> None:
    for _ in range(5):
        health.failed(failure())
        health.failed(failure())
        health.succeeded()
    await asyncio.sleep(0.01)
    assert canary.runs == 0


async def test_broken_network_goes_and_comes_back(health: ModelHealth, canary: Canary) -> None:
    canary.good = False
    for _ in range(3):
        health.failed(failure())
    await asyncio.sleep(0.05)
    assert not health.healthy
    assert canary.runs >= 2
    canary.good = True
    await asyncio.sleep(0.05)
    assert health.healthy
    settled = canary.runs
    await asyncio.sleep(0.05)
    assert canary.runs == settled


async def test_lost_device_is_out_at_once(health: ModelHealth, canary: Canary) -> None:
    canary.good = False
    health.failed(failure(FailureKind.DEVICE_LOST))
    assert not health.healthy


async def test_real_work_brings_it_back(health: ModelHealth, canary: Canary) -> None:
    canary.good = False
    health.failed(failure(FailureKind.DEVICE_LOST))
    health.succeeded()
    assert health.healthy
