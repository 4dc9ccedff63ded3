"""Model cards (Mitchell et al. 2019, arXiv:1810.03993): what a person should know before use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from velatura.export.specification import Background, Size, TrainingRun
from velatura.v1 import bundle_pb2


class Described(Protocol):
    """What a card takes of a specification, or of a graph that came ready."""

    @property
    def name(self) -> str: ...
    @property
    def background(self) -> Background: ...
    @property
    def counted_at(self) -> Size | None: ...
    @property
    def training(self) -> tuple[TrainingRun, ...]: ...
    @property
    def pictures(self) -> Callable[[], Tensor] | None: ...


def card(spec: Described, entry: bundle_pb2.ModelEntry) -> str:
    """The Markdown text for one network."""
    about = spec.background
    parts = [
        f"# {entry.name}",
        about.description,
        _facts(spec, entry),
        "## Tensors",
        _tensors(entry),
        "## Use",
        about.intended_use,
        "## Limits",
        about.limits,
        "## Training data",
        about.training_data,
        *_training(spec),
        *_picture(spec),
        "## Quality",
        _figures(entry),
        "## Checked against its source",
        _verifications(entry),
    ]
    if entry.labels:
        parts += ["## Labels", ", ".join(f"{i} {label}" for i, label in enumerate(entry.labels))]
    return "\n\n".join(part for part in parts if part) + "\n"


def index(manifest: bundle_pb2.BundleManifest) -> str:
    """README of the bundle: what lies in it and where each thing is described."""
    rows = ["| network | what it does | licence |", "|---|---|---|"]
    rows += [f"| [{m.name}]({m.card}) | {m.description} | {m.license} |" for m in manifest.models]
    parts = [
        f"# Bundle {manifest.name}",
        "Written by `velatura-export`; do not edit by hand. `manifest.json` describes every file, "
        "and `velatura-export verify` checks them against it.",
        "\n".join(rows),
    ]
    if manifest.styles:
        rows = ["| style | looks like |", "|---|---|"]
        rows += [f"| `{style.name}` | {style.description} |" for style in manifest.styles]
        parts += ["## Style presets", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _facts(spec: Described, entry: bundle_pb2.ModelEntry) -> str:
    per = f"{spec.counted_at[0]} × {spec.counted_at[1]} px" if spec.counted_at else "item"
    facts = [
        f"Role: {bundle_pb2.Role.Name(entry.role).removeprefix('ROLE_').lower()}",
        f"Version: {entry.version}",
        f"Licence: {entry.license}",
        f"Source: {spec.background.source}",
        f"Parameters: {entry.parameters:,}",
        *([f"Operations: {entry.flops / 1e9:.2f} GFLOP per {per}"] if entry.flops else []),
        f"File: `{entry.file}`, SHA-256 `{entry.sha256}`",
    ]
    facts += [f"Paper: {paper}" for paper in spec.background.papers]
    return "\n".join(f"- {fact}" for fact in facts)


def _tensors(entry: bundle_pb2.ModelEntry) -> str:
    rows = ["| | name | type | shape | range | layout |", "|---|---|---|---|---|---|"]
    for kind, tensors in (("in", entry.inputs), ("out", entry.outputs)):
        for tensor in tensors:
            shape = " × ".join("any" if extent == -1 else str(extent) for extent in tensor.shape)
            bounded = tensor.range_max > tensor.range_min
            span = f"[{tensor.range_min:g}, {tensor.range_max:g}]" if bounded else "unbounded"
            cells = (kind, f"`{tensor.name}`", tensor.dtype, shape, span, tensor.layout)
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _training(spec: Described) -> list[str]:
    """The commands, one a line; nothing where no run is on record."""
    if not spec.training:
        return []
    lines = []
    for run in spec.training:
        length = [f"{run.steps:,} steps"] if run.steps else []
        length += [f"{run.minutes:.0f} minutes"] if run.minutes else []
        lines.append(f"- `{run.command}`" + (f": {', '.join(length)}" if length else ""))
    return ["## Training", "\n".join(lines)]


def _picture(spec: Described) -> list[str]:
    if spec.pictures is None:
        return []
    return ["## Samples", f"![Samples of {spec.name}]({picture_name(spec)})"]


def picture_name(spec: Described) -> str:
    """The file beside the card."""
    return f"{spec.name}.png"


def _figures(entry: bundle_pb2.ModelEntry) -> str:
    if not entry.figures:
        return "No figure was recorded when this bundle was written."
    return "\n".join(
        f"- {figure.name}: {figure.value:g}{' ' + figure.unit if figure.unit else ''}"
        + (f" ({figure.measured_on})" if figure.measured_on else "")
        for figure in entry.figures
    )


def _verifications(entry: bundle_pb2.ModelEntry) -> str:
    """The worst case for each reference."""
    worst: dict[str, bundle_pb2.Verification] = {}
    for done in entry.verifications:
        reference = done.reference.partition(" at ")[0]
        if reference not in worst or done.max_abs_error > worst[reference].max_abs_error:
            worst[reference] = done
    return "\n".join(
        f"- {reference}: largest difference {done.max_abs_error:.2g} "
        f"(allowed {done.tolerance:.2g}), at batch {done.batch_size}"
        for reference, done in worst.items()
    )
