"""What goes into a bundle: the embedded one's networks, or somebody's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from velatura.export.avatar_networks import (
    SEGMENTER,
    avatar_specs,
    generator_entry,
    load_avatar_weights,
)
from velatura.export.bundle import SIZE_LIMIT
from velatura.export.own_bundle import OwnFiles, load_own, origin_of
from velatura.export.specification import NetworkSpec
from velatura.export.style_networks import style_entries, style_specs
from velatura.v1 import bundle_pb2


@dataclass(frozen=True)
class Contents:
    """Arguments of `write_bundle`."""

    specs: list[NetworkSpec]
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
    files: OwnFiles, name: str, *, license: str, training_data: str, styles: bool
) -> Contents:
    """Somebody's own networks, with the style networks where asked for. Raises as above."""
    own = load_own(files, name, origin_of(license, training_data))
    return Contents(
        specs=own.specs + (style_specs() if styles else []),
        generators=[(own.generator, own.directions)],
        styles=list(style_entries()) if styles else [],
        default_segmenter=own.segmenter,
        size_limit=None,
    )
