"""The bundle registry: loads a directory written by the exporter, refuses it when anything in it
does not fit, and finds networks, generators, directions and styles by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from velatura.server.engine.errors import BundleError, ModelNotFound, UnknownName
from velatura.server.engine.graph_check import check_graph
from velatura.server.engine.manifest_check import check_directions, check_manifest, field_of
from velatura.v1.bundle_pb2 import (
    BundleManifest,
    DirectionEntry,
    DirectionSet,
    GeneratorEntry,
    ModelEntry,
    Role,
    StyleEntry,
)

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
EXPORT_AGAIN = "Write the bundle again with velatura-export."

M = TypeVar("M", bound=Message)


class Bundle:
    """A checked bundle. Build it with `Bundle.load`; every path that it hands out exists and is
    inside `root`.
    """

    def __init__(
        self,
        root: Path,
        manifest: BundleManifest,
        manifest_sha256: str,
        directions: Mapping[str, Mapping[str, DirectionEntry]],
    ) -> None:
        self.root = root
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256
        self._models = {entry.name: entry for entry in manifest.models}
        self._generators = {entry.name: entry for entry in manifest.generators}
        self._styles = {entry.name: entry for entry in manifest.styles}
        self._directions = {name: dict(entries) for name, entries in directions.items()}

    @classmethod
    def load(cls, path: str | Path, *, check_graphs: bool = True) -> Bundle:
        """The bundle in directory `path`.

        Checks the schema version, path containment, the SHA-256 of every network, cross references
        and the directions' shape and generator; with `check_graphs` also that the tensors of every
        ONNX graph are the manifest's (opens each graph once on the CPU). Raises BundleError.
        """
        root = Path(path)
        raw = _read(root, MANIFEST)
        _check_schema_version(raw)
        manifest = _parse(raw, BundleManifest(), MANIFEST)
        check_manifest(manifest, MANIFEST)
        for index, entry in enumerate(manifest.models):
            at = field_of("models", index, entry.name)
            file = contained(root, entry.file, f"{at}.file")
            _check_hash(file, entry, f"{at}.sha256")
            if entry.card:
                contained(root, entry.card, f"{at}.card")
            if check_graphs:
                check_graph(file, entry)
        hashes = {entry.name: entry.sha256 for entry in manifest.models}
        directions = {
            generator.name: _load_directions(root, generator, hashes[generator.synthesis], index)
            for index, generator in enumerate(manifest.generators)
        }
        return cls(root, manifest, hashlib.sha256(raw).hexdigest(), directions)

    def model(self, name: str) -> ModelEntry:
        """The network `name`; raises ModelNotFound."""
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFound(name, self._models) from None

    def models_of(self, role: Role) -> list[ModelEntry]:
        """Networks of that role, in the manifest's order."""
        return [entry for entry in self.manifest.models if entry.role == role]

    def model_file(self, name: str) -> Path:
        """The ONNX file of network `name`; raises ModelNotFound."""
        return self.root / self.model(name).file

    def generator(self, name: str = "") -> GeneratorEntry:
        """The W+ generator `name`, the default one for ""; raises UnknownName."""
        if not name and self.manifest.generators:
            return self.manifest.generators[0]
        try:
            return self._generators[name]
        except KeyError:
            raise UnknownName("generator", name, self._generators) from None

    def directions(self, generator: str = "") -> dict[str, DirectionEntry]:
        """Directions of a generator by name, each with num_ws × w_dim `offsets`, row by row; raises
        UnknownName.
        """
        return dict(self._directions[self.generator(generator).name])

    def styles(self) -> dict[str, StyleEntry]:
        """Style presets by name."""
        return dict(self._styles)

    @property
    def default_segmenter(self) -> str:
        """Name of the segmenter that regions use; "" where the bundle has none."""
        return self.manifest.default_segmenter


def contained(root: Path, name: str, field: str) -> Path:
    """The existing regular file `name` below `root`; raises BundleError where it is missing or
    elsewhere.
    """
    if not name or "\\" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(
            MANIFEST,
            field,
            expected="a relative path inside the bundle, with '/' and without '..'",
            found=repr(name),
            remedy=EXPORT_AGAIN,
        )
    file = root / name
    if not file.is_file():
        raise BundleError(
            MANIFEST,
            field,
            expected=f"a file at {file}",
            found="none",
            remedy="Copy the whole bundle directory, large files of the repository included.",
        )
    if not file.resolve().is_relative_to(root.resolve()):  # a link may lead out of the bundle
        raise BundleError(
            MANIFEST,
            field,
            expected="a file inside the bundle",
            found=f"a link to {file.resolve()}",
            remedy="Replace the link with the file.",
        )
    return file


def _read(root: Path, name: str) -> bytes:
    if not root.is_dir():
        raise BundleError(
            str(root),
            "bundle",
            expected="a directory with manifest.json",
            found="a file" if root.exists() else "nothing",
            remedy="Point --bundle (VELATURA_BUNDLE) at the directory that velatura-export wrote.",
        )
    try:
        return (root / name).read_bytes()
    except OSError as error:
        raise BundleError(
            str(root / name),
            "file",
            expected="a readable file",
            found=error.strerror or str(error),
            remedy=EXPORT_AGAIN,
        ) from error


def _check_schema_version(raw: bytes) -> None:
    """Before the strict parse, because a newer schema's fields are unknown to this one."""
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise BundleError(
            MANIFEST, "file", expected="JSON in UTF-8", found=str(error), remedy=EXPORT_AGAIN
        ) from error
    found = (
        document.get("schema_version", document.get("schemaVersion", 0))
        if isinstance(document, dict)
        else None
    )
    if found != SCHEMA_VERSION:
        raise BundleError(
            MANIFEST,
            "schema_version",
            expected=str(SCHEMA_VERSION),
            found=repr(found),
            remedy="Write the bundle again with the exporter of this server's version.",
        )


def _parse(raw: bytes, message: M, file: str) -> M:
    try:
        return json_format.Parse(raw, message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise BundleError(
            file,
            "file",
            expected=f"the JSON form of {message.DESCRIPTOR.full_name}",
            found=str(error),
            remedy=EXPORT_AGAIN,
        ) from error


def _check_hash(file: Path, entry: ModelEntry, field: str) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != entry.sha256.lower():
        raise BundleError(
            str(file),
            field,
            expected=f"SHA-256 {entry.sha256}",
            found=found,
            remedy="The file is damaged or of another version: copy the bundle again.",
        )


def _load_directions(
    root: Path, generator: GeneratorEntry, synthesis_sha256: str, index: int
) -> dict[str, DirectionEntry]:
    if not generator.directions:
        return {}
    file = contained(
        root, generator.directions, f"{field_of('generators', index, generator.name)}.directions"
    )
    found = _parse(_read(root, generator.directions), DirectionSet(), str(file))
    check_directions(found, generator, synthesis_sha256, str(file))
    return {entry.name: _with_all_rows(entry, generator) for entry in found.directions}


def _with_all_rows(entry: DirectionEntry, generator: GeneratorEntry) -> DirectionEntry:
    """A direction of W is kept as one row for each of its layers; here the row is repeated."""
    if len(entry.offsets) == generator.num_ws * generator.w_dim:
        return entry
    row, still = list(entry.offsets), [0.0] * generator.w_dim
    whole = DirectionEntry()
    whole.CopyFrom(entry)
    del whole.offsets[:]
    for layer in range(generator.num_ws):
        whole.offsets.extend(row if entry.layer_start <= layer < entry.layer_end else still)
    return whole
