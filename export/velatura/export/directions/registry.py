"""Picks the source of directions by its name or file type, and writes a DirectionSet."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import json_format

from velatura.export.checkpoints.inert import StoredTensor
from velatura.export.checkpoints.native import load_generator
from velatura.export.checkpoints.torch_archive import load_archive
from velatura.export.directions import sefa
from velatura.export.directions.entries import Layers
from velatura.export.directions.imported import load_e4e, load_ganspace, load_interfacegan
from velatura.export.errors import CheckpointError
from velatura.export.networks.stylegan2 import Generator
from velatura.v1 import bundle_pb2

SEFA = "sefa"


def write_directions(
    source: str, weights: Path, out: Path, *, layers: str = "", count: int = 5, space: str = "W"
) -> list[str]:
    """Write the JSON that `native.load_directions` and the bundle's writer take; returns the names.

    The bundle's writer binds them to the generator's hash. Raises CheckpointError as the sources.
    """
    generator = load_generator(weights)
    found = find(source, generator, parse_layers(layers), count, space)
    message = bundle_pb2.DirectionSet(directions=found)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json_format.MessageToJson(message, preserving_proto_field_name=True) + "\n")
    return [direction.name for direction in found]


def find(
    source: str, generator: Generator, layers: Layers | None, count: int, space: str
) -> list[bundle_pb2.DirectionEntry]:
    """Directions of "sefa" or of a file, for this generator."""
    if source == SEFA:
        return sefa.find_directions(generator, count, layers=layers)
    path, config = Path(source), generator.config
    if path.suffix == ".npy":
        return [load_interfacegan(path, config, layers=layers, space=space)]
    if path.suffix == ".npz":
        return load_ganspace(path, config, layers=layers, count=count)
    if path.suffix == ".pt":
        if isinstance(load_archive(path), StoredTensor):
            return [load_e4e(path, config, layers=layers)]
        return load_ganspace(path, config, layers=layers, count=count)
    raise CheckpointError(f"{source}: give sefa, or a .npy, .npz or .pt file")


def parse_layers(text: str) -> Layers | None:
    """ "4:8" → (4, 8); empty → all layers."""
    if not text:
        return None
    start, colon, end = text.partition(":")
    if not (colon and start.isdecimal() and end.isdecimal()):
        raise CheckpointError(f"layers {text!r}: give the first and one past the last, as 4:8")
    return int(start), int(end)
