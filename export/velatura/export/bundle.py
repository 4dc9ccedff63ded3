"""Writes a bundle: traces, checks, describes, and only then puts the folder in its place."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import Message

from velatura.export.cards import card, index, picture_name
from velatura.export.compress import halve_weights
from velatura.export.cost import count_flops, count_parameters
from velatura.export.directions.text import write_direction_set
from velatura.export.errors import ExportError
from velatura.export.optimize import optimize
from velatura.export.own_onnx import OnnxNetwork
from velatura.export.pictures import save_pictures
from velatura.export.specification import NetworkSpec
from velatura.export.trace import trace
from velatura.export.verify import one_thread, verify
from velatura.v1 import bundle_pb2

MANIFEST = "manifest.json"
DIRECTIONS = "directions.json"
SCHEMA_VERSION = 1
SIZE_LIMIT = 40_000_000  # bytes; the embedded bundle is committed to the repository

Progress = Callable[[str, str], None]
"""Called with the network's name and what is being done to it."""


def write_bundle(
    out: Path,
    *,
    name: str,
    specs: Sequence[NetworkSpec | OnnxNetwork],
    generators: Sequence[tuple[bundle_pb2.GeneratorEntry, bundle_pb2.DirectionSet]] = (),
    styles: Sequence[bundle_pb2.StyleEntry] = (),
    default_segmenter: str = "",
    size_limit: int | None = SIZE_LIMIT,
    progress: Progress = lambda _name, _step: None,
) -> bundle_pb2.BundleManifest:
    """Export every network and write the bundle to `out`, replacing an older bundle there.

    Nothing at `out` changes unless everything succeeded. Raises ExportError when a network fails
    its checks, the bundle exceeds `size_limit` bytes (None: any size), or `out` holds something
    else than a bundle.
    """
    _require_replaceable(out)
    _require_names(specs, [entry for entry, _ in generators])
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / "bundle"
        (folder / "cards").mkdir(parents=True)
        manifest = bundle_pb2.BundleManifest(
            schema_version=SCHEMA_VERSION,
            name=name,
            version="1",
            models=[export_network(spec, folder, progress) for spec in specs],
            styles=styles,
            default_segmenter=default_segmenter,
            exporter_version=version("velatura-export"),
        )
        for entry, directions in generators:
            manifest.generators.append(_write_directions(folder, manifest, entry, directions))
        _write_json(folder / MANIFEST, manifest)
        (folder / "README.md").write_text(index(manifest))
        if size_limit is not None:
            _require_small(folder, size_limit)
        _replace(folder, out)
    return manifest


@one_thread()
def export_network(
    spec: NetworkSpec | OnnxNetwork,
    folder: Path,
    progress: Progress = lambda _name, _step: None,
) -> bundle_pb2.ModelEntry:
    """Write NAME.onnx and its card into `folder` and return its entry of the manifest."""
    path = folder / f"{spec.name}.onnx"
    if isinstance(spec, OnnxNetwork):
        for step in ("reading", "wrapping", "checking"):  # the first two are done by now
            progress(spec.name, step)
        verifications, parameters, flops = spec.write(path), spec.parameters, 0
        written_for = ""
    else:
        verifications = _traced(spec, path, progress)
        parameters, flops = count_parameters(spec.module), count_flops(spec)
        written_for = spec.written_for
    entry = bundle_pb2.ModelEntry(
        name=spec.name,
        version=spec.version,
        role=spec.role,
        file=path.name,
        sha256=sha256_of(path),
        inputs=[port.to_spec() for port in spec.inputs],
        outputs=[port.to_spec() for port in spec.outputs],
        labels=spec.labels,
        description=spec.background.description,
        license=spec.background.license,
        source=spec.background.source,
        training_data=spec.background.training_data,
        card=f"cards/{spec.name}.md",
        verifications=verifications,
        figures=spec.figures,
        parameters=parameters,
        flops=flops,
        max_batch_size=spec.max_batch_size,
        written_for=written_for,
    )
    (folder / entry.card).write_text(card(spec, entry))
    if spec.pictures is not None:
        path = (folder / entry.card).with_name(picture_name(spec))
        save_pictures(path, spec.pictures(), spec.picture_columns)
    progress(spec.name, "done")
    return entry


def _traced(spec: NetworkSpec, path: Path, progress: Progress) -> list[bundle_pb2.Verification]:
    """Write the graph of a torch module and prove that it is that module."""
    progress(spec.name, "tracing")
    trace(spec, path)
    progress(spec.name, "optimising")
    optimize(path, spec.name, half=spec.precision == "float16")
    if spec.half_weights:
        halve_weights(path, spec.name)
    progress(spec.name, "checking")
    verifications = verify(spec, path)
    for twin in spec.twins:
        verifications += _verify_twin(twin, path.parent)
    return verifications


def _verify_twin(twin: NetworkSpec, folder: Path) -> list[bundle_pb2.Verification]:
    """Comparisons of the network at another size, each with that size, by a graph of its own."""
    path = folder / f"{twin.name}.twin.onnx"
    try:
        trace(twin, path)
        optimize(path, twin.name)
        found = verify(twin, path)
    finally:
        path.unlink(missing_ok=True)
    for verification in found:
        verification.size = twin.inputs[0].shape[-1]
    return found


def read_manifest(folder: Path) -> bundle_pb2.BundleManifest:
    """Parse manifest.json. Raises ExportError when it is missing or of another schema."""
    path = folder / MANIFEST
    try:
        manifest = json_format.Parse(path.read_text(), bundle_pb2.BundleManifest())
    except FileNotFoundError as error:
        raise ExportError(f"{path}: no such file; {folder} is not a bundle") from error
    except json_format.ParseError as error:
        raise ExportError(f"{path}: not the JSON of a BundleManifest: {error}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise ExportError(
            f"{path}: schema_version is {manifest.schema_version}, this exporter reads "
            f"{SCHEMA_VERSION}; export the bundle again"
        )
    return manifest


def sha256_of(path: Path) -> str:
    """64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_directions(
    folder: Path,
    manifest: bundle_pb2.BundleManifest,
    entry: bundle_pb2.GeneratorEntry,
    directions: bundle_pb2.DirectionSet,
) -> bundle_pb2.GeneratorEntry:
    """Bind the directions to the synthesis file that they move, and write them."""
    hashes = {model.name: model.sha256 for model in manifest.models}
    bound = bundle_pb2.DirectionSet()
    bound.CopyFrom(directions)
    bound.generator_sha256 = hashes[entry.synthesis]
    for direction in bound.directions:
        direction.generator_sha256 = bound.generator_sha256
    written = bundle_pb2.GeneratorEntry()
    written.CopyFrom(entry)
    written.directions = f"{entry.name}-{DIRECTIONS}"
    write_direction_set(folder / written.directions, bound)
    return written


def _write_json(path: Path, message: Message) -> None:
    path.write_text(json_format.MessageToJson(message, preserving_proto_field_name=True) + "\n")


def _require_replaceable(out: Path) -> None:
    """Only a bundle or an empty folder may be replaced."""
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).exists():
        raise ExportError(
            f"{out}: holds files but no {MANIFEST}; give an empty folder or an older bundle"
        )
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out}: is a file; give a folder")


def _require_names(
    specs: Sequence[NetworkSpec | OnnxNetwork], generators: Sequence[bundle_pb2.GeneratorEntry]
) -> None:
    """Names are checked before minutes of tracing."""
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ExportError(f"network {name!r} occurs twice; give each its own name")
    for entry in generators:
        for field in ("synthesis", "mapping", "encoder"):
            network = getattr(entry, field)
            if network and network not in names:
                raise ExportError(
                    f"generator {entry.name!r}: {field} {network!r} is not among the networks "
                    f"{sorted(names)}"
                )


def _require_small(folder: Path, limit: int) -> None:
    sizes = {p.name: p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    total = sum(sizes.values())
    if total > limit:
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
        listing = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in largest)
        raise ExportError(
            f"the bundle has {total / 1e6:.1f} MB, the limit is {limit / 1e6:.0f}; "
            f"largest: {listing}"
        )


def _replace(folder: Path, out: Path) -> None:
    """Two renames: a reader sees the old bundle, none for an instant, or the new one whole."""
    old = folder.with_name("old")
    folder.chmod(0o755)
    if out.exists():
        out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
