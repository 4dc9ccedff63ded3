"""Finds the directions, measures all of the avatar networks, and writes both beside the weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from google.protobuf import json_format
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from velatura.export.checkpoints.native import load_encoder, load_generator, load_segmenter
from velatura.export.networks.encoder import Encoder
from velatura.export.networks.stylegan2 import Generator
from velatura.training.avatars.layers import LayerSet, render_layers
from velatura.training.directions.catalog import EDITS, NamedEdit
from velatura.training.directions.supervised import paired_direction
from velatura.training.evaluate import (
    Measured,
    evaluate_direction,
    evaluate_inversion,
    evaluate_segmenter,
)
from velatura.v1 import bundle_pb2

_PAIRS = range(5_000, 5_096)  # training seeds that the directions are taken from


def measure_weights(weights: Path, count: int) -> None:
    """Write avatar-directions.json and figures.json to `weights`; print them as tables."""
    generator = load_generator(weights / "avatar-generator.safetensors")
    encoder = load_encoder(weights / "avatar-encoder.safetensors")
    segmenter, _ = load_segmenter(weights / "avatar-segmenter.safetensors")
    layers = render_layers(generator.config.resolution)
    directions = _directions(generator, encoder, layers)
    text = json_format.MessageToJson(directions, preserving_proto_field_name=True, indent=0)
    (weights / "avatar-directions.json").write_text(text + "\n")
    figures = {
        "avatar-encoder": evaluate_inversion(generator, encoder, layers, count),
        "avatar-segmenter": evaluate_segmenter(segmenter, layers, count),
    }
    rows = {name: [_rounded(f) for f in found] for name, found in figures.items()}
    (weights / "figures.json").write_text(json.dumps(rows, indent=1) + "\n")
    _print(figures, directions)


def _directions(
    generator: Generator, encoder: Encoder, layers: LayerSet
) -> bundle_pb2.DirectionSet:
    found = bundle_pb2.DirectionSet()
    for edit in track(EDITS, description="directions"):
        offsets = paired_direction(edit, encoder, layers, _PAIRS)  # [num_ws, w_dim]
        figures = evaluate_direction(edit, offsets, generator, encoder, layers)
        found.directions.append(_entry(edit, offsets, figures))
    return found


def _entry(edit: NamedEdit, offsets: Tensor, figures: list[Measured]) -> bundle_pb2.DirectionEntry:
    return bundle_pb2.DirectionEntry(
        name=edit.name,
        attribute=edit.attribute,
        description=edit.description,
        space="W+",
        layer_start=0,
        layer_end=offsets.shape[0],
        default_strength=1.0,
        min_strength=-1.0,
        max_strength=1.5,
        method="supervised",
        regions=edit.regions,
        figures=[json_format.ParseDict(_rounded(f), bundle_pb2.Figure()) for f in figures],
        offsets=[round(v, 5) for v in offsets.flatten().tolist()],
    )


def _rounded(figure: Measured) -> dict[str, str | float]:
    return {**asdict(figure), "value": round(figure.value, 4)}


def _print(figures: dict[str, list[Measured]], directions: bundle_pb2.DirectionSet) -> None:
    console = Console()
    for network, found in figures.items():
        table = Table("figure", "value", "measured on", title=network)
        for f in found:
            table.add_row(f.name, f"{f.value:.4g} {f.unit}".strip(), f.measured_on)
        console.print(table)
    table = Table("direction", "effect", "preservation", title="directions at strength 1")
    for entry in directions.directions:
        effect, preservation = entry.figures
        table.add_row(entry.name, f"{effect.name} {effect.value:.2f}", f"{preservation.value:.3f}")
    console.print(table)
