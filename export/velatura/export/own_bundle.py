"""A bundle of somebody's own networks: a generator, and whatever else there is to it.

The generator alone serves Generate and edits of latents; an encoder adds edits of images, a
segmenter regions by class, directions edits by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from velatura.export import generator_networks
from velatura.export.checkpoints import inversion, native
from velatura.export.checkpoints.smp_model import WEIGHTS
from velatura.export.convert import is_own, open_generator
from velatura.export.directions.text import require_owner
from velatura.export.errors import CheckpointError, ExportError
from velatura.export.foreign_segmenter import (
    DEFAULT_SIZE,
    foreign_segmenter_spec,
    load_foreign_segmenter,
)
from velatura.export.formats import Provider
from velatura.export.generator_networks import Origin
from velatura.export.inversion_networks import ITERATIONS, inversion_spec
from velatura.export.networks.stylegan2 import Generator
from velatura.export.specification import NetworkSpec
from velatura.v1 import bundle_pb2

_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True)
class OwnFiles:
    """NAME.safetensors with NAME.json, or checkpoints of other projects as they are; directions; a
    class name a line. `iterations` are the passes of a ReStyle encoder."""

    generator: Path
    encoder: Path | None = None
    segmenter: Path | None = None
    directions: Path | None = None
    classes: Path | None = None
    iterations: int = ITERATIONS
    segmenter_classes: Path | None = None
    """Names, one a line, and the size in px, for a segmenter of another project."""
    segmenter_size: int = 0
    provider: Provider = Provider.CPU
    """What is to run the networks."""


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
    generator = open_generator(files.generator)
    config = generator.config
    names = {part: f"{name}-{part}" for part in ("synthesis", "mapping", "encoder", "segmenter")}
    classes = class_names(files.classes, config.classes)
    specs = [
        generator_networks.synthesis_spec(names["synthesis"], generator, origin, files.provider),
        generator_networks.mapping_spec(names["mapping"], generator, origin, classes),
    ]
    if files.encoder is not None:
        specs.append(
            describe_encoder(
                files.encoder, names["encoder"], generator, origin, files.iterations, files.provider
            )
        )
    if files.segmenter is None:
        _refuse_segmenter_options(files, "give --segmenter FILE with them")
    else:
        specs.append(describe_segmenter(files.segmenter, files, names["segmenter"], origin))
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


def describe_encoder(
    path: Path,
    name: str,
    generator: Generator,
    origin: Origin,
    iterations: int = ITERATIONS,
    provider: Provider = Provider.CPU,
) -> NetworkSpec:
    """Our own encoder, or one of pSp, e4e or ReStyle. Raises CheckpointError for one of another
    generator, which names the file."""
    encoder = native.load_encoder(path) if is_own(path) else inversion.load_encoder(path)
    try:
        if isinstance(encoder, inversion.LoadedEncoder):
            return inversion_spec(name, encoder, generator, origin, iterations, provider)
        return generator_networks.encoder_spec(name, encoder, generator, origin)
    except CheckpointError as error:
        raise CheckpointError(f"--encoder {path}: {error}") from error


def describe_segmenter(path: Path, files: OwnFiles, name: str, origin: Origin) -> NetworkSpec:
    """Our own segmenter, or one of another project at the size and with the classes of `files`.

    Raises CheckpointError naming the file.
    """
    try:
        if is_own(path) and (path.name != WEIGHTS or path.with_suffix(".json").exists()):
            _refuse_segmenter_options(files, "the JSON beside this one has both")
            return generator_networks.segmenter_spec(name, *native.load_segmenter(path), origin)
        return foreign_segmenter_spec(
            name,
            load_foreign_segmenter(path),
            origin,
            size=files.segmenter_size or DEFAULT_SIZE,
            class_names=_lines(files.segmenter_classes, "--segmenter-classes"),
        )
    except CheckpointError as error:
        raise type(error)(f"--segmenter {path}: {error}") from error


def _refuse_segmenter_options(files: OwnFiles, what: str) -> None:
    if files.segmenter_classes is not None or files.segmenter_size:
        raise CheckpointError(
            "--segmenter-classes and --segmenter-size are for segmenters of other projects; " + what
        )


def class_names(path: Path | None, count: int, option: str = "--classes") -> list[str]:
    """One a line; without a file, the classes' numbers. Raises CheckpointError naming the option
    when there is not one name for each class."""
    if path is None:
        return [str(index) for index in range(count)]
    names = _lines(path, option)
    if len(names) != count or len(set(names)) != count:
        raise CheckpointError(
            f"{option} {path}: {len(names)} names, {len(set(names))} of them different; the "
            f"generator has {count} classes, so give {count} lines"
            if count
            else f"{option} {path}: the generator has no classes; leave {option} out"
        )
    return names


def _lines(path: Path | None, option: str) -> list[str]:
    """The file's lines that are not blank; none without a file."""
    if path is None:
        return []
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{option} {path}: not a readable text file: {error}") from error
