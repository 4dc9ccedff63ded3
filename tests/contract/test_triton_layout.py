"""`velatura-export triton`: a repository that Triton's own schema reads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto
from typer.testing import CliRunner

from velatura.export.bundle import read_manifest
from velatura.export.cli import app
from velatura.export.errors import ExportError
from velatura.export.triton_layout import write_triton

from ..unit.export import onnx_files
from .triton import ROOT

MAPPING = """\
name = "mapping"
file = "mapping.onnx"
license = "MIT"
max_batch_size = 4
description = "A \\"quoted\\" name."
labels = ["cat", "hund ä"]
"""
# Parses config.pbtxt by the message that tritonclient ships, and gives it back as JSON.
PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
configs = [text_format.Parse(open(p).read(), model_config_pb2.ModelConfig()) for p in sys.argv[1:]]
options = {"preserving_proto_field_name": True}
print(json.dumps([json_format.MessageToDict(c, **options) for c in configs]))
"""


def parsed(*configs: Path) -> list[dict[str, Any]]:
    python = os.environ.get("VELATURA_TEST_TRITON_PYTHON", ROOT / ".venv-triton/bin/python")
    command = [str(python), "-c", PARSE, *map(str, configs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def mapping() -> onnx.ModelProto:
    """psi [N] times z [N, 4]: an input of nothing but a batch."""
    nodes = [
        onnx.helper.make_node("Unsqueeze", ["psi", "last"], ["column"]),
        onnx.helper.make_node("Mul", ["z", "column"], ["w"]),
    ]
    inputs = [onnx_files.value("z", "n", 4), onnx_files.value("psi", "n")]
    constants = {"last": onnx.numpy_helper.to_array(onnx.helper.make_tensor("l", 7, [1], [1]))}
    return onnx_files.model(nodes, inputs, [onnx_files.value("w", "n", 4)], constants)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("networks")
    paths = [
        onnx_files.write(folder, onnx_files.nhwc_style()),
        onnx_files.write(folder, mapping(), MAPPING, "mapping"),
    ]
    return [option for path in paths for option in ("--network", str(path))]


@pytest.fixture(scope="module")
def bundle(manifests: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    done = CliRunner().invoke(app, ["bundle", *manifests, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_tritons_schema_reads_the_configurations(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "models"
    done = CliRunner().invoke(app, ["triton", str(bundle), "--out", str(out)])
    assert done.exit_code == 0, done.output
    style, mapping = parsed(out / "mosaic/config.pbtxt", out / "mapping/config.pbtxt")
    sha256 = {model.name: model.sha256 for model in read_manifest(bundle).models}
    assert style == {
        "name": "mosaic",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 16,
        "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": ["3", "-1", "-1"]}],
        "output": [{"name": "image_out", "data_type": "TYPE_FP32", "dims": ["3", "-1", "-1"]}],
        "dynamic_batching": {"max_queue_delay_microseconds": "2000"},
        "parameters": {
            "sha256": {"string_value": sha256["mosaic"]},
            "version": {"string_value": "1"},
            "role": {"string_value": "ROLE_FIXED_STYLE"},
            "license": {"string_value": "MIT"},
        },
    }
    assert mapping["max_batch_size"] == 4
    assert mapping["input"] == [
        {"name": "z", "data_type": "TYPE_FP32", "dims": ["4"]},
        {"name": "psi", "data_type": "TYPE_FP32", "dims": ["1"], "reshape": {}},
    ]


def test_the_graphs_are_what_the_configurations_say(bundle: Path, tmp_path: Path) -> None:
    assert write_triton(bundle, tmp_path / "models") == ["mosaic", "mapping"]
    for model in read_manifest(bundle).models:
        file = tmp_path / "models" / model.name / "1" / "model.onnx"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == model.sha256
        graph = onnx.load(file).graph
        (config,) = parsed(file.parents[1] / "config.pbtxt")
        for kind, values in (("input", graph.input), ("output", graph.output)):
            assert [tensor["name"] for tensor in config[kind]] == [value.name for value in values]
            for tensor, value in zip(config[kind], values, strict=True):
                extents = [d.dim_value or -1 for d in value.type.tensor_type.shape.dim]
                dims = [] if "reshape" in tensor else list(map(int, tensor["dims"]))
                assert [-1, *dims] == extents
                assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert (tmp_path / "models/mapping/labels.txt").read_text() == "cat\nhund ä\n"
    assert not (tmp_path / "models/mosaic/labels.txt").exists()


def test_the_bundle_command_writes_the_same(
    bundle: Path, manifests: list[str], tmp_path: Path
) -> None:
    write_triton(bundle, tmp_path / "from bundle")
    out = tmp_path / "direct"
    for _ in range(2):  # the second time it replaces the first
        command = ["bundle", *manifests, "--layout", "triton", "--out", str(out)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    files = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert files == {
        p.relative_to(tmp_path / "from bundle"): p.read_bytes()
        for p in (tmp_path / "from bundle").rglob("*")
        if p.is_file()
    }


def test_other_folders_and_damaged_bundles_are_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/mine.txt").write_text("x")
    with pytest.raises(ExportError, match=r"holds 'mine\.txt', which is no model of Triton's"):
        write_triton(bundle, tmp_path / "letters")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes())
    with pytest.raises(ExportError, match=r"mosaic\.onnx: no such file in the bundle"):
        write_triton(damaged, tmp_path / "models")
    (damaged / "mosaic.onnx").write_bytes(b"other")
    with pytest.raises(ExportError, match=r"mosaic\.onnx: is not the file"):
        write_triton(damaged, tmp_path / "models")
    assert not (tmp_path / "models").exists()
