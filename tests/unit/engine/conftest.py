"""Small bundles built on the fly: every role's graph in a few nodes, in a directory as the exporter
writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from velatura.server.observability.metrics import Metrics

from .benches import Bench, Device

NUM_WS, W_DIM, RESOLUTION, CLASSES = 2, 4, 8, 3


def _save(
    path: Path, nodes: list[Any], inputs: Any, outputs: Any, constants: dict[str, Any]
) -> str:
    """Write a graph; returns its SHA-256."""

    def value(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        path.stem,
        [value(*item) for item in inputs],
        [value(*item) for item in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _spec(name: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": shape, **more}


def _model(name: str, role: str, sha256: str, inputs: Any, outputs: Any, **more: Any) -> Any:
    entry = {"name": name, "version": "1", "role": role, "file": f"{name}.onnx", "sha256": sha256}
    return entry | {"inputs": inputs, "outputs": outputs} | more


def _synthesis(root: Path, rng: np.random.Generator) -> Any:
    pixels = 3 * RESOLUTION * RESOLUTION
    weight = rng.standard_normal((NUM_WS * W_DIM, pixels)).astype(np.float32)
    sha256 = _save(
        root / "tiny-synthesis.onnx",
        [
            helper.make_node("Flatten", ["w_plus"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["pixels"]),
            helper.make_node("Reshape", ["pixels", "shape"], ["square"]),
            helper.make_node("Tanh", ["square"], ["image"]),
        ],
        [("w_plus", ["N", NUM_WS, W_DIM])],
        [("image", ["N", 3, RESOLUTION, RESOLUTION])],
        {"weight": weight, "shape": np.array([-1, 3, RESOLUTION, RESOLUTION], np.int64)},
    )
    return _model(
        "tiny-synthesis",
        "ROLE_SYNTHESIS",
        sha256,
        [_spec("w_plus", [-1, NUM_WS, W_DIM])],
        [_spec("image", [-1, 3, RESOLUTION, RESOLUTION], range_min=-1, range_max=1)],
    )


def _mapping(root: Path) -> Any:
    sha256 = _save(
        root / "tiny-mapping.onnx",
        [
            helper.make_node("Unsqueeze", ["truncation_psi", "axis"], ["column"]),
            helper.make_node("Mul", ["z", "column"], ["w"]),
        ],
        [("z", ["N", W_DIM]), ("truncation_psi", ["N"])],
        [("w", ["N", W_DIM])],
        {"axis": np.array([1], np.int64)},
    )
    return _model(
        "tiny-mapping",
        "ROLE_MAPPING",
        sha256,
        [_spec("z", [-1, W_DIM]), _spec("truncation_psi", [-1], range_max=1)],
        [_spec("w", [-1, W_DIM])],
        max_batch_size=4,
    )


def _segmenter(root: Path, rng: np.random.Generator) -> Any:
    shape = [-1, 3, RESOLUTION, RESOLUTION]
    sha256 = _save(
        root / "tiny-segmenter.onnx",
        [helper.make_node("Conv", ["image", "weight"], ["logits"], pads=[1, 1, 1, 1])],
        [("image", ["N", *shape[1:]])],
        [("logits", ["N", CLASSES, *shape[2:]])],
        {"weight": rng.standard_normal((CLASSES, 3, 3, 3)).astype(np.float32)},
    )
    return _model(
        "tiny-segmenter",
        "ROLE_SEGMENTER",
        sha256,
        [_spec("image", shape, range_min=-1, range_max=1)],
        [_spec("logits", [-1, CLASSES, *shape[2:]])],
        labels=["background", "skin", "hair"],
    )


def _presets(root: Path) -> Any:
    sha256 = _save(
        root / "tiny-presets.onnx",
        [
            helper.make_node("ReduceSum", ["style_weights", "axis"], ["sum"], keepdims=1),
            helper.make_node("Reshape", ["sum", "shape"], ["factor"]),
            helper.make_node("Mul", ["image", "factor"], ["image_out"]),
        ],
        [("image", ["N", 3, "H", "W"]), ("style_weights", ["N", 2])],
        [("image_out", ["N", 3, "H", "W"])],
        {"axis": np.array([1], np.int64), "shape": np.array([-1, 1, 1, 1], np.int64)},
    )
    return _model(
        "tiny-presets",
        "ROLE_PRESET_STYLE",
        sha256,
        [
            _spec("image", [-1, 3, -1, -1], range_max=1, multiple_of=4),
            _spec("style_weights", [-1, 2], range_max=1),
        ],
        [_spec("image_out", [-1, 3, -1, -1], range_max=1)],
        labels=["waves", "mosaic"],
    )


def write_bundle(root: Path) -> dict[str, Any]:
    """Write a whole bundle into `root`; returns its manifest as JSON would hold it."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    models = [_synthesis(root, rng), _mapping(root), _segmenter(root, rng), _presets(root)]
    (root / "cards").mkdir(exist_ok=True)
    (root / "cards" / "synthesis.md").write_text("# Tiny\n")
    models[0]["card"] = "cards/synthesis.md"
    direction = {
        "name": "smile",
        "space": "W+",
        "layer_start": 0,
        "layer_end": NUM_WS,
        "min_strength": -2.0,
        "max_strength": 2.0,
        "offsets": [0.5] * (NUM_WS * W_DIM),
    }
    directions = {"generator_sha256": models[0]["sha256"], "directions": [direction]}
    (root / "directions.json").write_text(json.dumps(directions))
    generator = {
        "name": "tiny",
        "synthesis": "tiny-synthesis",
        "mapping": "tiny-mapping",
        "num_ws": NUM_WS,
        "w_dim": W_DIM,
        "z_dim": W_DIM,
        "resolution": RESOLUTION,
        "w_avg": [0.0] * W_DIM,
        "directions": "directions.json",
    }
    manifest = {
        "schema_version": 1,
        "name": "tiny",
        "models": models,
        "generators": [generator],
        "styles": [
            {"name": "waves", "model": "tiny-presets", "index": 0},
            {"name": "mosaic", "model": "tiny-presets", "index": 1},
        ],
        "default_segmenter": "tiny-segmenter",
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return manifest


@pytest.fixture
def bundle_root(tmp_path: Path) -> Path:
    """A directory with a good bundle."""
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def spoil(bundle_root: Path) -> Callable[[Callable[[Any], Any], str], Path]:
    """Change a JSON file of the good bundle with a function; returns the bundle's directory."""

    def change(edit: Callable[[Any], Any], file: str = "manifest.json") -> Path:
        document = json.loads((bundle_root / file).read_text())
        edit(document)
        (bundle_root / file).write_text(json.dumps(document))
        return bundle_root

    return change


@pytest.fixture
def metrics() -> Metrics:
    """A registry of its own."""
    return Metrics()


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(held: bool = False, **limits: Any) -> Bench:
        benches.append(Bench(Device(held), **limits))
        return benches[-1]

    yield make
    for made in benches:
        made.device.let_go(1000)
        await made.batcher.close()
