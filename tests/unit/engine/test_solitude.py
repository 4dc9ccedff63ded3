"""When a run may keep the event loop's own thread: for a caller alone, and never for long."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.cost import CostModel
from velatura.server.engine.gate import Gate
from velatura.server.engine.graph_check import ends
from velatura.server.engine.lanes import Lane
from velatura.server.engine.solitude import CALM_RUNS, LOOK_EVERY, SHORT_S
from velatura.server.observability.metrics import Metrics


class Threads:
    """A network that doubles, and notes on which thread it ran."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, inputs: Any) -> dict[str, Any]:
        self.seen.append(threading.get_ident())
        return {"y": inputs["x"] * 2}

    @property
    def on_loop(self) -> list[bool]:
        return [ident == threading.get_ident() for ident in self.seen]


def batcher_of(run: Threads, *, ends: bool = True, seconds: float = 0.001) -> Batcher:
    cost = CostModel()
    cost.observe(1.0, seconds)
    lane = Lane("narrow", run, 1, 2, cost, ends)
    return Batcher("m", [lane], BatchLimits(), Metrics().for_model("m"), gate=Gate(2))


def item(value: float = 1.0) -> dict[str, Any]:
    return {"x": np.full((1, 3), value, np.float32)}


async def one_by_one(batcher: Batcher, times: int) -> None:
    for number in range(times):
        outputs = await batcher.submit(item(number))
        assert outputs["y"].tolist() == [[2.0 * number] * 3]


async def test_a_lone_caller_gets_the_loops_thread_and_now_and_then_another() -> None:
    run = Threads()
    batcher = batcher_of(run)
    await one_by_one(batcher, CALM_RUNS + 3 * LOOK_EVERY)
    assert not any(run.on_loop[:CALM_RUNS])
    after = run.on_loop[CALM_RUNS:]
    assert after.count(False) == 3
    assert batcher.running_items == batcher.queued_items == batcher.gate.used == 0
    await batcher.close()


async def test_company_ends_it() -> None:
    run = Threads()
    batcher = batcher_of(run)
    await one_by_one(batcher, CALM_RUNS + 1)
    assert run.on_loop[-1]
    await asyncio.gather(*(batcher.submit(item()) for _ in range(2)))
    before = len(run.seen)
    await one_by_one(batcher, CALM_RUNS - 1)
    assert not any(run.on_loop[before:])
    await batcher.close()


async def test_a_second_caller_is_noticed_though_he_only_comes_while_the_loop_is_held() -> None:
    """Both ask again at once: while one's run holds the loop, the other cannot be seen."""
    run = Threads()
    batcher = batcher_of(run)
    await one_by_one(batcher, CALM_RUNS + 1)
    inline = len([each for each in run.on_loop if each])
    await asyncio.gather(*(one_by_one(batcher, 40) for _ in range(2)))
    assert len([each for each in run.on_loop if each]) - inline <= LOOK_EVERY
    await batcher.close()


@pytest.mark.parametrize(
    "what", [{"ends": False}, {"seconds": 2 * SHORT_S}], ids=["endless graph", "long runs"]
)
async def test_never_for(what: dict[str, Any]) -> None:
    run = Threads()
    batcher = batcher_of(run, **what)
    for _ in range(2 * CALM_RUNS):
        batcher.lanes.wide.cost.a = what.get("seconds", 0.001)
        await batcher.submit(item())
    assert not any(run.on_loop)
    await batcher.close()


async def test_a_failure_on_the_loops_thread_is_the_callers_alone() -> None:
    run = Threads()
    batcher = batcher_of(run)
    await one_by_one(batcher, CALM_RUNS + 1)

    def fails(_: Any) -> dict[str, Any]:
        raise RuntimeError("boom")

    batcher.lanes.wide.run = fails
    with pytest.raises(Exception, match="boom"):
        await batcher.submit(item())
    batcher.lanes.wide.run = run
    await one_by_one(batcher, 3)
    assert batcher.running_items == batcher.gate.used == batcher.gate.outstanding == 0
    await batcher.close()


def graph(tmp_path: Path, *nodes: onnx.NodeProto) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy")
    file = tmp_path / "graph.onnx"
    model = helper.make_model(helper.make_graph(list(nodes), "g", [x], [y]))
    file.write_bytes(model.SerializeToString())
    return file


def test_a_graph_that_repeats_itself_may_never_end(tmp_path: Path) -> None:
    assert ends(graph(tmp_path, helper.make_node("Relu", ["x"], ["y"])))
    body = helper.make_graph([], "body", [], [])
    for kind in ("Loop", "Scan"):
        assert not ends(graph(tmp_path, helper.make_node(kind, ["x"], ["y"], body=body)))
    assert not ends(tmp_path / "missing.onnx")
