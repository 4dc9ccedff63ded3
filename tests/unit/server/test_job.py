"""Where work on pixels is done: in the pool, or at once where no other thread would be quicker."""

from __future__ import annotations

import asyncio
import threading
from typing import NoReturn

import pytest

from velatura.server.pipelines.job import FEW_PIXELS
from velatura.server.pipelines.workers import Workers

from .fakes import FakeEngine, job_on


@pytest.mark.parametrize(
    ("pixels", "leaves_cpus", "at_once"),
    [
        (FEW_PIXELS, False, True),
        (FEW_PIXELS + 1, False, False),
        (FEW_PIXELS, True, False),
    ],
)
async def test_few_pixels_are_worked_on_at_once_where_networks_want_all_cpus(
    workers: Workers, pixels: int, leaves_cpus: bool, at_once: bool
) -> None:
    engine = FakeEngine({})
    engine.leaves_cpus = leaves_cpus
    job = job_on(engine, workers)
    thread = await job.compute_few("finish", pixels, threading.get_ident)
    assert (thread == threading.get_ident()) is at_once
    assert list(job.timings) == ["finish"]


@pytest.mark.parametrize("leaves_cpus", [True, False])
async def test_what_goes_wrong_is_the_callers_own(workers: Workers, leaves_cpus: bool) -> None:
    def fail() -> NoReturn:
        raise ValueError("no such colour")

    engine = FakeEngine({})
    engine.leaves_cpus = leaves_cpus
    job = job_on(engine, workers)
    with pytest.raises(ValueError, match="no such colour"):
        await job.compute_few("finish", 1, fail)
    assert list(job.timings) == ["finish"]
    assert await asyncio.wait_for(job.compute("finish", int, "1"), 10) == 1
