"""What the pipelines find, share and promise: which networks run for pictures that come again."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.errors import DeviceFailed, FailureKind
from velatura.server.engine.standing import Priority, Standing, current_standing
from velatura.server.imaging.frames import Frame, central_frame
from velatura.server.imaging.picture import Picture
from velatura.server.imaging.regions import ClassPart, RegionSpec
from velatura.server.pipelines.caches import Caches
from velatura.server.pipelines.edit import EditOrder, edit
from velatura.server.pipelines.encode import encode
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.latents import Layers, OffsetStep
from velatura.server.pipelines.segment import label_map
from velatura.server.pipelines.workers import Workers

from .fakes import GENERATOR, NUM_WS, FakeEngine, encoder, synthesis
from .test_pipelines import SEGMENTER, segmenter


def sent(level: int = 128, digest: bytes = b"one") -> Picture:
    """A picture as it comes from a message."""
    return Picture(np.full((40, 60, 3), level, np.uint8), digest=digest)


def order(picture: Picture, value: float = 10, **more: Any) -> EditOrder:
    step = OffsetStep(Layers(0, NUM_WS, "l"), np.array([value], np.float32), "edits[0]")
    return EditOrder(picture, None, [step], GENERATOR, {}, **more)


class Server:
    """Jobs on one fake engine and one set of caches."""

    def __init__(self, workers: Workers, limit: int = 1 << 20) -> None:
        networks = {"synthesis": synthesis, "encoder": encoder, "segmenter": segmenter}
        self.engine = FakeEngine(networks, SEGMENTER)
        self.caches, self._workers = Caches(limit), workers

    def job(self, tenant: bytes = b"") -> Job:
        return Job(self.engine, self._workers, None, None, self.caches, tenant)  # type: ignore[arg-type]

    @property
    def ran(self) -> list[str]:
        return sorted(name for name, _ in self.engine.runs)


@pytest.fixture
def server(workers: Workers) -> Server:
    return Server(workers)


async def test_an_edit_of_a_known_picture_runs_the_generator_for_one_image(server: Server) -> None:
    region = RegionSpec((ClassPart("face"),))
    first = await edit(server.job(), order(sent(), 10, region=region, segmenter=SEGMENTER))
    assert server.ran == ["encoder", "segmenter", "synthesis"]
    server.engine.runs.clear()
    again = server.job()
    second = await edit(again, order(sent(), 20, region=region, segmenter=SEGMENTER))
    assert server.ran == ["synthesis"]
    assert [len(inputs["w_plus"]) for inputs in server.engine.ran("synthesis")] == [1]
    assert [each.name for each in again.models] == ["encoder", "segmenter", "synthesis"]
    assert {"encoder", "segmenter", "generator"} <= set(again.timings)
    assert first.change is not None
    assert second.change is not None
    assert second.change.mean_difference_inside > first.change.mean_difference_inside


async def test_only_what_will_run_is_promised(server: Server) -> None:
    region = RegionSpec((ClassPart("face"),))
    for _ in range(2):
        await edit(server.job(), order(sent(), region=region, segmenter=SEGMENTER))
    first, second = server.engine.promised
    assert [[name for name, _ in stage] for stage in first] == [
        ["encoder", "segmenter"],
        ["synthesis"],
    ]
    assert [[name for name, _ in stage] for stage in second] == [[], ["synthesis"]]


async def test_on_a_gpu_both_images_come_from_one_call(server: Server) -> None:
    server.engine.providers = {"synthesis": "CUDAExecutionProvider"}
    for value in (10, 20):
        await edit(server.job(), order(sent(), value))
    assert [len(inputs["w_plus"]) for inputs in server.engine.ran("synthesis")] == [2, 2]
    assert len(server.engine.ran("encoder")) == 1


async def test_pictures_that_nobody_sent_and_other_callers_are_computed_anew(
    server: Server,
) -> None:
    frame = central_frame(60, 40)
    for picture in (sent(), sent(digest=b""), sent(digest=b""), sent(digest=b"two")):
        await encode(server.job(), picture, GENERATOR, frame, reconstruct=False)
    assert server.ran == ["encoder"] * 4
    await encode(server.job(b"else"), sent(), GENERATOR, frame, reconstruct=False)
    await encode(server.job(), sent(), GENERATOR, Frame(0, 0, 20), reconstruct=False)
    assert server.ran == ["encoder"] * 6
    await encode(server.job(), sent(), GENERATOR, frame, reconstruct=False)
    assert server.ran == ["encoder"] * 6


async def test_what_is_kept_cannot_be_changed(server: Server) -> None:
    frame = central_frame(60, 40)
    encoding = await encode(server.job(), sent(), GENERATOR, frame, reconstruct=True)
    labels = await label_map(server.job(), sent(), SEGMENTER)
    for array in (encoding.w_plus, labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert encoding.w_plus.base is None, "a view would keep the whole batch"


async def test_a_reconstruction_is_what_the_next_edit_starts_from(server: Server) -> None:
    frame = central_frame(60, 40)
    await encode(server.job(), sent(), GENERATOR, frame, reconstruct=True)
    await edit(server.job(), order(sent()))
    assert server.ran == ["encoder", "synthesis", "synthesis"]
    assert [len(inputs["w_plus"]) for inputs in server.engine.ran("synthesis")] == [1, 1]


@pytest.mark.parametrize("limit", [1 << 20, 0])
async def test_the_same_edits_at_once_share_every_run(workers: Workers, limit: int) -> None:
    server = Server(workers, limit)
    server.engine.delays = {"encoder": 0.05, "synthesis": 0.05}
    tasks = [asyncio.ensure_future(edit(server.job(), order(sent()))) for _ in range(6)]
    await asyncio.sleep(0.02)
    tasks[0].cancel()  # whoever began it
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(np.array_equal(each.picture.rgb, results[1].picture.rgb) for each in results[1:])
    assert server.ran == ["encoder", "synthesis"]
    assert server.caches.in_flight == 0
    assert (server.caches.nbytes == 0) == (limit == 0)


async def test_an_urgent_call_does_not_wait_for_one_that_may_wait(server: Server) -> None:
    server.engine.delays = {"encoder": 0.05}

    async def one(priority: Priority) -> None:
        current_standing.set(Standing(priority=priority))
        await encode(server.job(), sent(), GENERATOR, central_frame(60, 40), reconstruct=False)

    urgencies = (Priority.LOW, Priority.HIGH, Priority.LOW, Priority.HIGH)
    await asyncio.gather(*(asyncio.create_task(one(each)) for each in urgencies))
    assert server.ran == ["encoder"] * 2


async def test_the_last_to_leave_stops_the_run_and_a_failure_is_not_kept(server: Server) -> None:
    server.engine.delays = {"encoder": 30}
    tasks = [asyncio.ensure_future(edit(server.job(), order(sent()))) for _ in range(2)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
    assert server.engine.cancelled == ["encoder"]
    assert server.caches.in_flight == 0

    def fail(_: Any) -> dict[str, Any]:
        raise DeviceFailed("encoder", FailureKind.EXECUTION, "broken")

    server.engine.delays = {}
    server.engine.networks["encoder"] = fail
    with pytest.raises(DeviceFailed):
        await edit(server.job(), order(sent()))
    server.engine.networks["encoder"] = encoder
    await edit(server.job(), order(sent()))
