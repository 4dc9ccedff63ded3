"""What a direction does at each strength: where its useful range begins and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.progress import track

from velatura.training.directions.catalog import EDITS
from velatura.training.evaluation.directions import offsets_of
from velatura.training.evaluation.edits import Faces, measure_edit
from velatura.training.evaluation.subjects import Subjects
from velatura.v1 import bundle_pb2

SWEPT = ("smile", "closed_eyes", "glasses", "beard", "long_hair", "hair_blonde")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Curve:
    """Success and preservation at each strength."""

    strengths: tuple[float, ...]
    success: tuple[float, ...]
    preservation: tuple[float, ...]


def sweep_strengths(
    subjects: Subjects,
    directions: bundle_pb2.DirectionSet,
    faces: Faces,
    names: Sequence[str] = SWEPT,
    strengths: Sequence[float] = STRENGTHS,
) -> Mapping[str, Curve]:
    """Curves of those directions among `names` that there are."""
    edits = {edit.name: edit for edit in EDITS}
    chosen = [d for d in directions.directions if d.name in names and d.name in edits]
    found = {}
    for entry in track(chosen, description="sweeping strengths"):
        offsets = offsets_of(entry, subjects)
        effects = [
            measure_edit(
                edits[entry.name], offsets, faces, subjects.generator, subjects.judge, strength
            )
            for strength in strengths
        ]
        found[entry.name] = Curve(
            tuple(strengths),
            tuple(e.success or 0.0 for e in effects),
            tuple(e.preservation for e in effects),
        )
    return found
