"""CUDA graphs without a GPU: a session and a module that stand in for onnxruntime's, and refuse
what the real ones refuse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from velatura.server.engine.cuda_graphs import GRAPH_ID, MOST_GRAPHS, CudaGraphs


class FakeOrt:
    """The parts of the onnxruntime module that are used."""

    class RunOptions:
        def __init__(self) -> None:
            self.entries: dict[str, str] = {}

        def add_run_config_entry(self, key: str, value: str) -> None:
            self.entries[key] = value

    class OrtValue:
        def __init__(self, array: Any) -> None:
            self.array = array.copy()

        @classmethod
        def ortvalue_from_numpy(cls, array: Any, device: str, index: int) -> FakeOrt.OrtValue:
            assert (device, index) == ("cuda", 0)
            return cls(array)

        def update_inplace(self, array: Any) -> None:
            assert array.shape == self.array.shape
            self.array[...] = array


class FakeBinding:
    """Buffers by name."""

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: Any) -> None:
        self.outputs[name] = value

    def copy_outputs_to_cpu(self) -> list[Any]:
        return [value.array.copy() for value in self.outputs.values()]


class FakeSession:
    """Doubles x. A graph replays on the buffers that it was captured with, whatever is bound."""

    def __init__(self) -> None:
        self.captured: dict[str, FakeBinding] = {}
        self.replays = 0

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run(self, names: list[str], inputs: dict[str, Any], options: Any) -> list[Any]:
        assert options.entries[GRAPH_ID] == "-1"
        assert names == ["y"]
        return [inputs["x"] * 2]

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        graph = options.entries[GRAPH_ID]
        self.replays += graph in self.captured
        binding = self.captured.setdefault(graph, binding)
        binding.outputs["y"].array[...] = binding.inputs["x"].array * 2


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


def batch(items: int, value: float) -> dict[str, Any]:
    return {"x": np.full((items, 3), value, np.float32)}


def test_each_bucket_has_a_graph_and_its_own_answers(session: FakeSession) -> None:
    graphs = CudaGraphs(session, FakeOrt)
    for value in (1.0, 2.0, 3.0):
        for items in (1, 4):
            (y,) = graphs.run(["y"], batch(items, value))
            np.testing.assert_array_equal(y, np.full((items, 3), 2 * value))
    assert len(session.captured) == 2
    assert session.replays == 4


def test_an_answer_is_not_overwritten_by_the_next_run(session: FakeSession) -> None:
    graphs = CudaGraphs(session, FakeOrt)
    (first,) = graphs.run(["y"], batch(2, 1.0))
    graphs.run(["y"], batch(2, 5.0))
    np.testing.assert_array_equal(first, np.full((2, 3), 2.0))


def test_buckets_are_bounded(session: FakeSession) -> None:
    graphs = CudaGraphs(session, FakeOrt)
    for items in range(1, MOST_GRAPHS + 4):
        (y,) = graphs.run(["y"], batch(items, 1.0))
        assert y.shape == (items, 3)
    assert len(session.captured) == MOST_GRAPHS
