"""A bundle as a model repository of NVIDIA's Triton server.

Each network becomes NAME/config.pbtxt, NAME/1/model.onnx and, where it has labels, NAME/labels.txt.
Triton then does the batching; pipelines such as EditImage are this project's server's alone.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from velatura.export.bundle import read_manifest, sha256_of
from velatura.export.errors import ExportError
from velatura.v1 import bundle_pb2

CONFIG = "config.pbtxt"
MAX_BATCH_SIZE = 16  # of networks whose bundle leaves it to the server, as this project's does
QUEUE_DELAY_US = 2000
_VERSION = "1"  # Triton's own count of a model's versions
_TYPES = {
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bool": "TYPE_BOOL",
} | {
    f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}"
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}


def write_triton(folder: Path, out: Path) -> list[str]:
    """Write the repository and return its models' names; all of it, or nothing is replaced.

    Raises ExportError where the bundle is damaged, or `out` holds something else than such a
    repository.
    """
    manifest = read_manifest(folder)
    require_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh = Path(scratch) / "repository"
        for model in manifest.models:
            _write_model(folder, fresh / model.name, model)
        fresh.chmod(0o755)
        if out.exists():
            out.rename(Path(scratch) / "old")
        fresh.rename(out)
    return [model.name for model in manifest.models]


def config_of(model: bundle_pb2.ModelEntry) -> str:
    """config.pbtxt: Triton's ModelConfig in protobuf's text form.

    Shapes are without the batch axis; a tensor of nothing but a batch is one number an item, which
    Triton takes away again before the graph.
    """
    parameters = {
        "sha256": model.sha256,
        "version": model.version,
        "role": bundle_pb2.Role.Name(model.role),
        "license": model.license,
    }
    lines = [
        f"name: {_text(model.name)}",
        'platform: "onnxruntime_onnx"',
        'backend: "onnxruntime"',
        f"max_batch_size: {model.max_batch_size or MAX_BATCH_SIZE}",
    ]
    for kind, specs in (("input", model.inputs), ("output", model.outputs)):
        for spec in specs:
            lines += [f"{kind} {{", *(f"  {line}" for line in _tensor(model, kind, spec)), "}"]
    lines += [f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}"]
    lines += [
        f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}"
        for key, value in parameters.items()
        if value
    ]
    return "\n".join(lines) + "\n"


def _tensor(model: bundle_pb2.ModelEntry, kind: str, spec: bundle_pb2.TensorSpec) -> Iterator[str]:
    if spec.dtype not in _TYPES:
        raise ExportError(
            f"{model.name}: {spec.name!r} is {spec.dtype}, which Triton does not know"
        )
    extents = list(spec.shape)[1:]
    yield f"name: {_text(spec.name)}"
    yield f"data_type: {_TYPES[spec.dtype]}"
    yield f"dims: [ {', '.join(map(str, extents or [1]))} ]"
    if not extents:
        yield "reshape { shape: [ ] }"
    if kind == "output" and model.role == bundle_pb2.ROLE_CLASSIFIER and model.labels:
        yield 'label_filename: "labels.txt"'


def _text(value: str) -> str:
    """A quoted string; what JSON escapes, protobuf's text form reads as well."""
    return json.dumps(value, ensure_ascii=False)


def _write_model(folder: Path, target: Path, model: bundle_pb2.ModelEntry) -> None:
    source = (folder / model.file).resolve()
    if not source.is_relative_to(folder.resolve()) or not source.is_file():
        raise ExportError(f"{model.file}: no such file in the bundle")
    if sha256_of(source) != model.sha256:
        raise ExportError(f"{model.file}: is not the file that the manifest names by its sha256")
    (target / _VERSION).mkdir(parents=True)
    shutil.copyfile(source, target / _VERSION / "model.onnx")
    (target / CONFIG).write_text(config_of(model))
    if model.labels:
        (target / "labels.txt").write_text("".join(f"{label}\n" for label in model.labels))


def require_replaceable(out: Path) -> None:
    """Raises ExportError unless `out` is missing, empty, or such a repository."""
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out}: is a file; give a folder")
    foreign = [p.name for p in out.iterdir() if not (p / CONFIG).is_file()] if out.exists() else []
    if foreign:
        raise ExportError(
            f"{out}: holds {sorted(foreign)[0]!r}, which is no model of Triton's; give an empty "
            "folder or an older repository"
        )
