"""The report as Markdown: what was wanted, what was measured, on what, and by whom judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from velatura.training.avatars.parts import OPTIONS
from velatura.training.evaluation.classes import AGREEMENT
from velatura.training.evaluation.consistency import Return
from velatura.training.evaluation.directions import is_measured
from velatura.training.evaluation.figures import Measured
from velatura.training.evaluation.samples import RENDERS, Likeness
from velatura.v1 import bundle_pb2

# What the networks are to reach.
SUCCESS, PRESERVATION = 0.85, 0.93
LEAST_IOU = 0.80
_DIRECTIONS = 16
_FLOORS = {
    "PSNR": (25.0, "dB"),
    "MS-SSIM": (0.93, ""),
    "kept": (0.90, ""),
    "kept/mouth": (0.85, ""),
    "kept/eyes": (0.85, ""),
}
_MIOU = 0.93
_FID_RATIO = 2.5
_AGREEMENT = 0.80


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured. `judge` is the classifier's own accuracy by attribute."""

    count: int
    judge: Mapping[str, float]
    inversion: Sequence[Measured]
    directions: bundle_pb2.DirectionSet
    returns: Mapping[str, Return]
    consistency: Sequence[Measured]
    segmenters: Mapping[str, list[Measured]]
    likeness: Mapping[str, Likeness]
    samples: Sequence[Measured]
    paths: Sequence[Measured]
    classes: Mapping[str, list[Measured]]


@dataclass(frozen=True)
class Gate:
    """One wanted figure, and whether it was reached."""

    what: str
    wanted: str
    measured: str
    reached: bool


def gates(found: Evaluation) -> list[Gate]:
    """Every wanted figure that could be measured."""
    inversion = {f.name: f.value for f in found.inversion}
    rows = [
        _at_least(f"inversion, {name}", inversion[name], least, unit)
        for name, (least, unit) in _FLOORS.items()
    ]
    for name, figures in found.segmenters.items():
        values = {f.name: f.value for f in figures}
        rows.append(_at_least(f"{name}, mIoU", values["mIoU"], _MIOU))
        worst = min((v, n) for n, v in values.items() if n.startswith("IoU/"))
        rows.append(_at_least(f"{name}, worst class ({worst[1][4:]})", worst[0], LEAST_IOU))
    good = sum(_is_good(d) for d in found.directions.directions)
    rows.append(
        Gate(
            f"directions with success ≥ {SUCCESS} and preservation ≥ {PRESERVATION}",
            f"≥ {_DIRECTIONS}",
            f"{good} of {sum(is_measured(d) for d in found.directions.directions)}",
            good >= _DIRECTIONS,
        )
    )
    ratio = next(f.value for f in found.samples if f.name == "FID/ratio_psi_0.7")
    rows.append(
        Gate(
            "FID at psi 0.7 over the floor", f"≤ {_FID_RATIO}", f"{ratio:.2f}", ratio <= _FID_RATIO
        )
    )
    for name, figures in found.classes.items():
        agreement = next(f.value for f in figures if f.name == AGREEMENT)
        rows.append(_at_least(f"{name}, class agreement at psi 0.7", agreement, _AGREEMENT))
    return rows


def write_document(path: Path, found: Evaluation) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(found))


def document(found: Evaluation) -> str:
    """The whole page."""
    parts = [
        "# Evaluation of the embedded networks",
        "Written by `velatura-train evaluate --out docs`; do not edit by hand. "
        f"Everything is measured on avatars whose seeds (from 1,000,000 on) never enter training; "
        f"{found.count} of them where nothing else is said.",
        "## Wanted and measured",
        _gates(found),
        "## The judge",
        _judge(found),
        "## Inversion",
        "![Held-out avatars above, their reconstructions below]"
        "(images/evaluation/reconstructions.png)",
        _figures(found.inversion),
        "## Directions",
        _directions(found),
        "## Taking an edit back",
        _returns(found),
        "## Locality",
        "With a region given, the largest difference outside of it is 0 by construction (the "
        "change is composited, and samples outside are copied). That is a promise of the server, "
        "so it is measured there: `tests/integration/test_locality.py`, through a running server.",
        "## Segmenters",
        _segmenters(found),
        "## Samples",
        _samples(found),
    ]
    for name, figures in found.classes.items():
        parts += [f"## {name}", _figures(figures)]
    return "\n\n".join(parts) + "\n"


def _gates(found: Evaluation) -> str:
    rows = [
        (gate.what, gate.wanted, gate.measured, "yes" if gate.reached else "**no**")
        for gate in gates(found)
    ]
    return _table(("figure", "wanted", "measured", "reached"), rows)


def _judge(found: Evaluation) -> str:
    rows = [(a, f"{found.judge[a]:.4f}") for a in OPTIONS]
    return (
        "A classifier of every attribute, trained on renders alone: it has seen no picture of any "
        "generator, and softened, noisy, shifted and zoomed renders besides plain ones. Its own "
        f"accuracy on {found.count} held-out renders, where the attribute shows (a bald head "
        "without a beard has no hair colour; such faces are left out of that attribute everywhere "
        "below):\n\n"
        + _table(("attribute", "accuracy"), rows)
        + f"\n\nIts mean error of the background's samples is {found.judge['background']:.3f} in a "
        "range of [-1, 1]."
    )


def _directions(found: Evaluation) -> str:
    rows = []
    for entry in found.directions.directions:
        if is_measured(entry):
            effect, kept = entry.figures[0], entry.figures[1]
            main = f"{effect.value:.2f}" + (" (approach)" if effect.name == "approach" else "")
            useful = f"{entry.min_strength:g} to {entry.max_strength:g}"
            rows.append((f"`{entry.name}`", main, f"{kept.value:.3f}", useful))
    measured = [d for d in found.directions.directions if is_measured(d)]
    place = measured[0].figures[0].measured_on if measured else "nothing"
    return (
        f"Measured on {place}. Success: every attribute that the edit names reads as wanted. "
        "Preservation: the other attributes read as on the reconstruction without the edit, "
        "averaged. For backgrounds, approach: by how much the distance to the wanted colours fell "
        "(1: arrived).\n\n![Success and preservation](images/evaluation/directions.png)\n\n"
        + _table(("direction", "success", "preservation", "useful strengths"), rows)
        + "\n\n![Success and preservation over strength](images/evaluation/sweep.png)\n\n"
        "![A face for each of these directions, at rising strength]"
        "(images/evaluation/strengths.png)"
    )


def _returns(found: Evaluation) -> str:
    rows = [
        (
            f"`{name}`",
            f"{r.psnr:.1f} dB",
            f"{r.others:.3f}",
            "" if r.edited is None else f"{r.edited:.2f}",
        )
        for name, r in found.returns.items()
    ]
    return (
        "Edit, decode, encode again, edit by the opposite, decode: compared with the "
        "reconstruction without any edit. An edit to an option replaces what was there, so the way "
        "back cannot know it: the last column says on how many faces the attribute itself came "
        "back.\n\n"
        + _table(("edit", "PSNR", "other attributes kept", "edited attribute back"), rows)
        + "\n\n"
        + _figures(found.consistency)
    )


def _segmenters(found: Evaluation) -> str:
    names = list(found.segmenters)
    by_name = {n: {f.name: f.value for f in found.segmenters[n]} for n in names}
    figures = list(by_name[names[0]]) if names else []
    rows = [(f, *(f"{by_name[n][f]:.4f}" for n in names)) for f in figures]
    return "![IoU of each class](images/evaluation/segmenters.png)\n\n" + _table(
        ("figure", *names), rows
    )


def _samples(found: Evaluation) -> str:
    rows = [
        (
            "renders (the floor)" if name == RENDERS else name.replace("_", " "),
            f"{s.fid:.3f}",
            f"{s.fid / found.likeness[RENDERS].fid:.2f}",
            f"{s.kid:.5f}",
            f"{s.precision:.3f}",
            f"{s.recall:.3f}",
            f"{s.inception_score:.2f}",
        )
        for name, s in found.likeness.items()
    ]
    place = found.samples[0].measured_on
    scored = next(f.measured_on for f in found.samples if f.name.startswith("IS/"))
    return (
        "![Samples at psi 0.7](images/evaluation/samples.png)\n\n"
        f"{place[0].upper()}{place[1:]}; computed by torch-fidelity. The floor is another set of "
        "held-out renders against the same reference: what a perfect generator would get. It falls "
        "as the sets grow (the FID of small sets is biased upwards), and the ratio rises with it: "
        "compare ratios of one size alone. The IS "
        f"counts {scored.removeprefix(place).removeprefix(', ')}. With domain features the figures "
        "compare versions of this generator and say nothing beside published ones. Psi pulls each "
        "sample towards the nearest of the mapping network's centres (docs/training.md).\n\n"
        + _table(("pictures", "FID", "FID / floor", "KID", "precision", "recall", "IS"), rows)
        + "\n\nPerceptual path length:\n\n"
        + _figures(found.paths)
    )


def _is_good(entry: bundle_pb2.DirectionEntry) -> bool:
    """Success of a named option (or arrival of a background) and preservation as wanted."""
    if not is_measured(entry):
        return False
    return entry.figures[0].value >= SUCCESS and entry.figures[1].value >= PRESERVATION


def _at_least(what: str, value: float, least: float, unit: str = "") -> Gate:
    return Gate(what, f"≥ {least:g} {unit}".strip(), f"{value:.4g} {unit}".strip(), value >= least)


def _figures(figures: Sequence[Measured]) -> str:
    rows = [(f.name, f"{f.value:.4g} {f.unit}".strip(), f.measured_on) for f in figures]
    return _table(("figure", "value", "measured on"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
