"""Edits of the latents and mixes of styles, as callers write them, turned into protos."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TypeAlias

from PIL import Image as PilImage

from velatura.client.errors import invalid
from velatura.client.images import ImageInput, Upload, to_proto
from velatura.v1 import edit_pb2, stylize_pb2

Layers: TypeAlias = "tuple[int, int]"  # [start, end)


@dataclass(frozen=True)
class Direction:
    """Move along a named direction: 1 is its usual effect, negative goes the other way, -10..10.

    `layers` (start, end) are the W+ layers to move; the direction's own range when None.
    """

    name: str
    strength: float = 1.0
    layers: Layers | None = None


@dataclass(frozen=True)
class Offset:
    """Add numbers to W+ layers, as in `w_plus[:, 8:12] += 0.5`.

    `values` is one number for everything, w_dim numbers for each layer, or (end - start) × w_dim.
    """

    layers: Layers
    values: float | Sequence[float]


@dataclass(frozen=True)
class Reference:
    """Take latents from another image (or its token); `strength` 0..1 says how far to go there."""

    image: ImageInput | None = None
    latent_token: bytes | None = None
    layers: Layers | None = None
    strength: float = 1.0


Edit: TypeAlias = "Direction | Offset | Reference"
EditsInput: TypeAlias = "Mapping[str, float] | Edit | str | Sequence[Edit | str]"


@dataclass(frozen=True)
class Style:
    """One style and its share in a mix: a preset's name, or a picture (PIL image, path, bytes)."""

    source: str | PilImage.Image | os.PathLike[str] | bytes
    weight: float = 1.0


# A str is a preset's name; a picture's file is a `Path`, so that the two are never mistaken.
StyleInput: TypeAlias = "Style | str | PilImage.Image | os.PathLike[str] | bytes"
StyleMix: TypeAlias = "Mapping[str | os.PathLike[str], float]"
StylesInput: TypeAlias = "StyleInput | StyleMix | Sequence[StyleInput | tuple[StyleInput, float]]"


def edits_to_protos(edits: EditsInput, upload: Upload, field: str = "edits") -> list[edit_pb2.Edit]:
    """The steps in order; a mapping's order is its own.

    Raises:
        InvalidArgument: naming the step, when a strength is not finite or a kind is unknown.
    """
    if isinstance(edits, Mapping):
        steps: Sequence[Edit | str] = [Direction(name, value) for name, value in edits.items()]
    elif isinstance(edits, (str, Direction, Offset, Reference)):
        steps = [edits]
    else:
        steps = edits
    return [_edit(step, f"{field}[{i}]", upload) for i, step in enumerate(steps)]


def styles_to_protos(styles: StylesInput, upload: Upload) -> list[stylize_pb2.StyleSource]:
    """The styles of a mix, in order."""
    if isinstance(styles, Mapping):
        items = [Style(source, weight) for source, weight in styles.items()]
    elif isinstance(styles, Sequence) and not isinstance(styles, (str, bytes)):
        items = [_as_style(item) for item in styles]
    else:
        items = [_as_style(styles)]
    return [_style(item, f"styles[{i}]", upload) for i, item in enumerate(items)]


def layers_to_proto(layers: Layers | None, field: str) -> edit_pb2.LayerRange | None:
    """A half-open range of layers; None stays None."""
    if layers is None:
        return None
    start, end = layers
    if not 0 <= start < end <= 64:
        raise invalid(field, f"({start}, {end}) is no range of layers; use 0 ≤ start < end ≤ 64")
    return edit_pb2.LayerRange(start=start, end=end)


def _edit(step: Edit | str, field: str, upload: Upload) -> edit_pb2.Edit:
    if isinstance(step, str):
        step = Direction(step)
    if isinstance(step, Direction):
        at = f"{field}.direction"
        return edit_pb2.Edit(
            direction=edit_pb2.DirectionEdit(
                name=step.name,
                strength=_finite(step.strength, f"{at}.strength"),
                layers=layers_to_proto(step.layers, f"{at}.layers"),
            )
        )
    if isinstance(step, Offset):
        at = f"{field}.offset"
        given = step.values if isinstance(step.values, Sequence) else [step.values]
        return edit_pb2.Edit(
            offset=edit_pb2.OffsetEdit(
                layers=layers_to_proto(step.layers, f"{at}.layers"),
                values=[_finite(v, f"{at}.values[{i}]") for i, v in enumerate(given)],
            )
        )
    if isinstance(step, Reference):
        return edit_pb2.Edit(reference=_reference(step, f"{field}.reference", upload))
    raise invalid(
        field, f"cannot use {type(step).__name__} as an edit; give Direction, Offset or Reference"
    )


def _reference(step: Reference, field: str, upload: Upload) -> edit_pb2.ReferenceEdit:
    if (step.image is None) == (step.latent_token is None):
        raise invalid(field, "give either an image or a latent token")
    return edit_pb2.ReferenceEdit(
        image=None if step.image is None else to_proto(step.image, f"{field}.image", upload),
        latent_token=step.latent_token,
        layers=layers_to_proto(step.layers, f"{field}.layers"),
        strength=_finite(step.strength, f"{field}.strength"),
    )


def _as_style(item: StyleInput | tuple[StyleInput, float]) -> Style:
    if isinstance(item, Style):
        return item
    if isinstance(item, tuple):
        source, weight = item
        return Style(source.source if isinstance(source, Style) else source, weight)
    return Style(item)


def _style(style: Style, field: str, upload: Upload) -> stylize_pb2.StyleSource:
    weight = _finite(style.weight, f"{field}.weight")
    # On the wire 0 means "not given, so 1"; a caller who writes 0 means none of it.
    if weight <= 0:
        raise invalid(f"{field}.weight", f"must be above 0, got {weight:g}; leave the style out")
    if isinstance(style.source, str):
        return stylize_pb2.StyleSource(preset=style.source, weight=weight)
    return stylize_pb2.StyleSource(
        image=to_proto(style.source, f"{field}.image", upload), weight=weight
    )


def _finite(value: float, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid(field, f"expected a number, got {value!r}")
    if not math.isfinite(value):
        raise invalid(field, f"must be finite, got {value}")
    return float(value)
