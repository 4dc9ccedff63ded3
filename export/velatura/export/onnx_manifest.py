"""The small TOML file that describes an ONNX network of somebody's own.

name = "mosaic"
role = "fixed_style"
file = "mosaic.onnx"
license = "MIT"
[inputs.image]
tensor = "input_1"
layout = "NHWC"
range = [0, 255]
[outputs.image_out]
tensor = "Identity"
layout = "NHWC"
range = [0, 255]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from velatura.export.errors import CheckpointError
from velatura.v1 import bundle_pb2

_NAME = re.compile(r"[a-z0-9._-]{1,128}")
_TEXTS = ("name", "role", "file", "license", "description", "source", "training_data", "version")
_FIELDS = (*_TEXTS, "labels", "size", "multiple_of", "max_batch_size", "inputs", "outputs")
_TENSOR_FIELDS = ("tensor", "layout", "range", "mean", "std", "channels")
_LARGEST_MULTIPLE = 256  # px; the server's tiles are not much larger
# These are parts of a generator: their sizes must agree with each other's.
_NOT_ALONE = ("synthesis", "mapping", "encoder")


@dataclass(frozen=True)
class TensorNote:
    """How the file's tensor differs from what the role promises."""

    tensor: str = ""
    """Its name in the file; empty for the same name, or where there is only one."""
    layout: str = "NCHW"
    low: float = 0.0
    high: float = 0.0
    """Range of a picture's values in the file; equal where it is the role's own."""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    """By channel, in units of the range: the file takes (value - mean) / std."""
    bgr: bool = False


@dataclass(frozen=True)
class OnnxManifest:
    """A manifest that was read; `path` is its own file and `file` the network."""

    path: Path
    name: str
    role: bundle_pb2.Role
    file: Path
    license: str
    description: str = ""
    source: str = ""
    training_data: str = ""
    version: str = "1"
    labels: tuple[str, ...] = ()
    size: int = 0
    """Height and width of pictures for roles of one size; 0 for what the graph says."""
    multiple_of: int = 1
    """What free heights and widths must be multiples of."""
    max_batch_size: int = 0
    inputs: Mapping[str, TensorNote] = field(default_factory=dict)
    outputs: Mapping[str, TensorNote] = field(default_factory=dict)


def read_onnx_manifest(path: Path) -> OnnxManifest:
    """Read and check. Raises CheckpointError that names the file, the field and what it may be."""
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"--network {path}: no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(f"--network {path}: not TOML: {error}") from error
    try:
        return _manifest(path, values)
    except CheckpointError as error:
        raise CheckpointError(f"--network {path}: {error}") from None


def role_name(role: bundle_pb2.Role) -> str:
    """As manifests and cards write it, such as "fixed_style"."""
    return bundle_pb2.Role.Name(role).removeprefix("ROLE_").lower()


def _manifest(path: Path, values: Mapping[str, Any]) -> OnnxManifest:
    _require_known("", values, _FIELDS)
    for name in _TEXTS:
        if not isinstance(values.get(name, ""), str):
            raise CheckpointError(f"{name}: give a text in quotes")
    missing = [name for name in ("name", "file", "license") if not values.get(name)]
    if missing:
        raise CheckpointError(f"{', '.join(missing)}: missing")
    if not _NAME.fullmatch(values["name"]):
        raise CheckpointError(
            f"name: {values['name']!r}; give 1 to 128 of lower case letters, digits, '-', '_', '.'"
        )
    return OnnxManifest(
        path=path,
        name=values["name"],
        role=_role(values.get("role", "unspecified")),
        file=path.parent / values["file"],
        license=values["license"],
        description=values.get("description", ""),
        source=values.get("source", ""),
        training_data=values.get("training_data", ""),
        version=values.get("version", "1"),
        labels=_labels(values.get("labels", [])),
        size=_count(values, "size", 0),
        multiple_of=_count(values, "multiple_of", 1, _LARGEST_MULTIPLE),
        max_batch_size=_count(values, "max_batch_size", 0),
        inputs=_notes("inputs", values.get("inputs", {})),
        outputs=_notes("outputs", values.get("outputs", {})),
    )


def _role(text: str) -> bundle_pb2.Role:
    name = text.lower().replace("-", "_")
    known = [each.removeprefix("ROLE_").lower() for each in bundle_pb2.Role.keys()]  # noqa: SIM118 - no dictionary
    if name in _NOT_ALONE:
        raise CheckpointError(
            f"role: {text!r} is part of a generator and cannot come alone; export generators from "
            "their checkpoints with --generator"
        )
    if name not in known:
        raise CheckpointError(f"role: {text!r}; known are {', '.join(known)}")
    return cast("bundle_pb2.Role", bundle_pb2.Role.Value(f"ROLE_{name.upper()}"))


def _labels(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
        raise CheckpointError('labels: give a list of names, such as ["cat", "dog"]')
    if len(set(values)) != len(values):
        raise CheckpointError("labels: a name occurs twice")
    return tuple(values)


def _count(values: Mapping[str, Any], name: str, least: int, most: int = 65536) -> int:
    value = values.get(name, least)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CheckpointError(f"{name}: {value!r}; give a whole number from {least} to {most}")
    return value


def _notes(kind: str, values: object) -> dict[str, TensorNote]:
    if not isinstance(values, dict) or not all(isinstance(v, dict) for v in values.values()):
        raise CheckpointError(f"{kind}: give a table for each tensor, such as [{kind}.image]")
    return {name: _note(f"{kind}.{name}", value) for name, value in values.items()}


def _note(at: str, values: Mapping[str, Any]) -> TensorNote:
    _require_known(f"{at}.", values, _TENSOR_FIELDS)
    tensor, layout = values.get("tensor", ""), values.get("layout", "NCHW")
    channels = values.get("channels", "RGB")
    if not isinstance(tensor, str):
        raise CheckpointError(f"{at}.tensor: give the name that the file has for it")
    if layout not in ("NCHW", "NHWC"):
        raise CheckpointError(f'{at}.layout: {layout!r}; give "NCHW" or "NHWC"')
    if channels not in ("RGB", "BGR"):
        raise CheckpointError(f'{at}.channels: {channels!r}; give "RGB" or "BGR"')
    low, high = _numbers(at, values, "range", 2) or (0.0, 0.0)
    if values.get("range") is not None and not low < high:
        raise CheckpointError(f"{at}.range: {low} to {high}; give [least, greatest]")
    std = _numbers(at, values, "std", 3)
    if 0 in std:
        raise CheckpointError(f"{at}.std: a deviation of 0; give positive numbers")
    return TensorNote(
        tensor, layout, low, high, _numbers(at, values, "mean", 3), std, channels == "BGR"
    )


def _numbers(at: str, values: Mapping[str, Any], name: str, count: int) -> tuple[float, ...]:
    given = values.get(name)
    if given is None:
        return ()
    numeric = isinstance(given, list) and all(type(v) in (int, float) for v in given)
    if not numeric or len(given) != count:
        raise CheckpointError(f"{at}.{name}: give a list of {count} numbers")
    return tuple(map(float, given))


def _require_known(at: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        listed = ", ".join(f"{at}{name}" for name in unknown)
        raise CheckpointError(f"{listed}: unknown; known are {', '.join(known)}")
