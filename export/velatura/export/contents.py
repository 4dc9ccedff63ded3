"""What goes into a bundle: the embedded one's networks, or somebody's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from velatura.export.avatar_networks import (
    SEGMENTER,
    avatar_specs,
    generator_entry,
    load_avatar_weights,
)
from velatura.export.bundle import SIZE_LIMIT
from velatura.export.extra_networks import (
    ExtraFiles,
    load_extras,
    require_different_styles,
)
from velatura.export.own_bundle import OwnFiles, load_own, origin_of
from velatura.export.own_onnx import OnnxNetwork
from velatura.export.specification import NetworkSpec
from velatura.export.style_networks import style_entries, style_specs
from velatura.v1 import bundle_pb2


@dataclass(frozen=True)
class Contents:
    """Arguments of `write_bundle`."""

    specs: Sequence[NetworkSpec | OnnxNetwork]
    generators: list[tuple[bundle_pb2.GeneratorEntry, bundle_pb2.DirectionSet]]
    styles: list[bundle_pb2.StyleEntry]
    default_segmenter: str
    size_limit: int | None


def avatar_contents(weights: Path) -> Contents:
    """The embedded bundle: avatars and styles. Raises ExportError, or ModuleNotFoundError where
    the style networks' package is missing."""
    loaded = load_avatar_weights(weights)
    return Contents(
        specs=avatar_specs(loaded) + style_specs(),
        generators=[(generator_entry(loaded.generator), loaded.directions)],
        styles=list(style_entries()),
        default_segmenter=SEGMENTER,
        size_limit=SIZE_LIMIT,
    )


def own_contents(
    files: OwnFiles | None,
    name: str,
    *,
    license: str,
    training_data: str,
    styles: bool,
    extras: ExtraFiles | None = None,
) -> Contents:
    """Somebody's own generator, networks that need none, or both, with the style networks where
    asked for. Raises as above."""
    origin = origin_of(license, training_data)
    own = load_own(files, name, origin) if files is not None else None
    more = load_extras(extras or ExtraFiles(), name, origin)
    entries = [*more.styles, *(style_entries() if styles else [])]
    require_different_styles(entries)
    return Contents(
        specs=[*(own.specs if own else []), *more.specs, *(style_specs() if styles else [])],
        generators=[(own.generator, own.directions)] if own else [],
        styles=entries,
        default_segmenter=(own.segmenter if own else "") or more.segmenter,
        size_limit=None,
    )
