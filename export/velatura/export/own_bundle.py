"""A bundle of somebody's own networks: a generator, and whatever else there is to it.

The generator alone serves Generate and edits of latents; an encoder adds edits of images, a
segmenter regions by class, directions edits by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from velatura.export import generator_networks
from velatura.export.checkpoints import native
from velatura.export.directions.text import require_owner
from velatura.export.errors import CheckpointError, ExportError
from velatura.export.generator_networks import Origin
from velatura.export.specification import NetworkSpec
from velatura.v1 import bundle_pb2

_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class OwnFiles:
    """Files of our own kinds: NAME.safetensors with NAME.json, directions, a class name a line."""

    generator: Path
    encoder: Path | None = None
    segmenter: Path | None = None
    directions: Path | None = None
    classes: Path | None = None


@dataclass(frozen=True)
class OwnNetworks:
    """What `write_bundle` takes."""

    specs: list[NetworkSpec]
    generator: bundle_pb2.GeneratorEntry
    directions: bundle_pb2.DirectionSet
    segmenter: str
    """Name of the segmenter; empty without one."""


def origin_of(license: str, training_data: str) -> Origin:
    """What cards can say of networks that somebody else trained; empty texts are "not stated"."""
    return Origin(
        license=license or "not stated",
        source="Weights given to velatura-export by their owner.",
        training_data=training_data or "Not stated when the bundle was written.",
        limits="Knows what its training data shows and nothing else. Not measured here.",
    )


def bundle_name(given: str, generator: Path) -> str:
    """`given`, or the generator file's name in the letters that names may have.

    Raises ExportError when a given name has others.
    """
    name = given or _NOT_IN_NAMES.sub("-", generator.stem.lower()).strip("-")[:64]
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"--name {name!r}: give 1 to 64 of lower case letters, digits, '-', '_' and '.'"
        )
    return name


def load_own(files: OwnFiles, name: str, origin: Origin) -> OwnNetworks:
    """Read the files and describe the networks, named NAME-synthesis and so on.

    Raises CheckpointError naming the file that is missing, damaged, or made for another generator.
    """
    generator = native.load_generator(_native(files.generator, "--generator"))
    config = generator.config
    names = {part: f"{name}-{part}" for part in ("synthesis", "mapping", "encoder", "segmenter")}
    classes = _class_names(files.classes, config.classes)
    specs = [
        generator_networks.synthesis_spec(names["synthesis"], generator, origin),
        generator_networks.mapping_spec(names["mapping"], generator, origin, classes),
    ]
    if files.encoder is not None:
        encoder = native.load_encoder(_native(files.encoder, "--encoder"))
        try:
            spec = generator_networks.encoder_spec(names["encoder"], encoder, generator, origin)
        except CheckpointError as error:
            raise CheckpointError(f"--encoder {files.encoder}: {error}") from error
        specs.append(spec)
    if files.segmenter is not None:
        network, shape = native.load_segmenter(_native(files.segmenter, "--segmenter"))
        specs.append(generator_networks.segmenter_spec(names["segmenter"], network, shape, origin))
    directions = bundle_pb2.DirectionSet()
    if files.directions is not None:
        directions = native.load_directions(files.directions, config.num_ws, config.w_dim)
        require_owner(directions, files.generator, files.directions)
    entry = generator_networks.generator_entry(
        name,
        generator,
        synthesis=names["synthesis"],
        mapping=names["mapping"],
        encoder=names["encoder"] if files.encoder else "",
    )
    return OwnNetworks(specs, entry, directions, names["segmenter"] if files.segmenter else "")


def _native(path: Path, option: str) -> Path:
    if path.suffix != _SUFFIX:
        raise CheckpointError(
            f"{option} {path}: give a {_SUFFIX} file of velatura-train, or of "
            "`velatura-export convert` for checkpoints of other projects"
        )
    return path


def _class_names(path: Path | None, count: int) -> list[str]:
    """One a line; without a file, the classes' numbers."""
    if path is None:
        return [str(index) for index in range(count)]
    try:
        names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"--classes {path}: not a readable text file: {error}") from error
    if len(names) != count or len(set(names)) != count:
        raise CheckpointError(
            f"--classes {path}: {len(names)} names, {len(set(names))} of them different; the "
            f"generator has {count} classes, so give {count} lines"
            if count
            else f"--classes {path}: the generator has no classes; leave --classes out"
        )
    return names
