"""How peers are installed and started; that they run is what `make bench-peers` shows."""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from pathlib import Path

import pytest

from benchmarks.peers.subjects import HERE, MAX_BATCH, PEERS, Peer
from benchmarks.sections.oip import MODEL

GRAPH = Path("/bundle/avatar-synthesis.onnx")


def by_name(name: str) -> Peer:
    return next(peer for peer in PEERS if peer.name == name)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_requirements_are_bounded(peer: Peer) -> None:
    lines = (HERE / f"requirements-{peer.name}.txt").read_text().splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    assert any(line.startswith("onnxruntime>=") for line in wanted)
    assert all(re.search(r"[<>]=?\d", line) for line in wanted)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_start_runs_the_environment_of_the_peer_on_the_port(peer: Peer, tmp_path: Path) -> None:
    start = peer.start(GRAPH, tmp_path, 4321)
    assert Path(start.command[0]).parent == peer.python.parent
    files = [path.read_text() for path in tmp_path.iterdir()]
    assert "4321" in " ".join([*start.command, *files])
    assert str(GRAPH) in " ".join([*start.command, *files])
    for word in start.command[1:]:
        if word.endswith(".py"):
            assert Path(word).is_file()


def test_triton_is_told_where_the_interpreters_library_lies(tmp_path: Path) -> None:
    start = by_name("pytriton").start(GRAPH, tmp_path, 4321)
    assert start.env["LD_LIBRARY_PATH"] == sysconfig.get_config_var("LIBDIR")


def test_mlserver_batches_as_the_others(tmp_path: Path) -> None:
    by_name("mlserver").start(GRAPH, tmp_path, 4321)
    model = json.loads((tmp_path / "model-settings.json").read_text())
    assert (model["name"], model["max_batch_size"]) == (MODEL, MAX_BATCH)
    module, _, name = model["implementation"].rpartition(".")
    tree = ast.parse((HERE / f"{module}.py").read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
