"""The file that directions lie in: a DirectionSet as protobuf JSON, one direction a line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from google.protobuf import json_format

from velatura.export.errors import CheckpointError
from velatura.v1 import bundle_pb2


def write_direction_set(path: Path, directions: bundle_pb2.DirectionSet) -> None:
    """Half the size of protobuf's own layout, and a changed direction is one changed line."""
    lines = [
        json.dumps(json_format.MessageToDict(entry, preserving_proto_field_name=True))
        for entry in directions.directions
    ]
    owner = json.dumps(directions.generator_sha256)
    text = f'{{"generator_sha256": {owner},\n"directions": [\n' + ",\n".join(lines) + "\n]}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file: what directions belong to until a bundle is written."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_owner(directions: bundle_pb2.DirectionSet, weights: Path, path: Path) -> None:
    """Raises CheckpointError when `directions`, read from `path`, say they are of other weights."""
    owner = directions.generator_sha256
    if owner and owner != weights_sha256(weights):
        raise CheckpointError(
            f"{path}: belongs to weights of SHA-256 {owner[:12]}…, {weights} has "
            f"{weights_sha256(weights)[:12]}…; find the directions again with "
            "`velatura-export directions`"
        )
