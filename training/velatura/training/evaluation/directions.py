"""Finds the named directions, measures each, and writes them as the bundle's DirectionSet."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from google.protobuf import json_format
from rich.progress import track
from torch import Tensor

from velatura.export.checkpoints.native import load_directions
from velatura.training.directions.catalog import EDITS, NamedEdit
from velatura.training.directions.strengths import Measure, best_gain, useful_range
from velatura.training.directions.supervised import paired_direction
from velatura.training.evaluation.edits import Faces, measure_edit
from velatura.training.evaluation.figures import Measured
from velatura.training.evaluation.subjects import Subjects
from velatura.v1 import bundle_pb2

DIRECTIONS_FILE = "avatar-directions.json"
SUPERVISED = "supervised"
_LEAST_PRESERVATION = 0.9  # within the useful strengths
_WANTED_PRESERVATION = 0.94  # at strength 1
_FIRST_PAIR = 5_000  # training seeds that the directions are taken from


def find_directions(
    subjects: Subjects, edits: Iterable[NamedEdit], pairs: int = 96
) -> bundle_pb2.DirectionSet:
    """One direction for each edit, from that many pairs of training avatars."""
    seeds = range(_FIRST_PAIR, _FIRST_PAIR + pairs)
    found = bundle_pb2.DirectionSet()
    for edit in track(list(edits), description="finding directions"):
        offsets = paired_direction(edit, subjects.encoder, subjects.layers, seeds)
        found.directions.append(_entry(edit, offsets))
    return found


def read_directions(subjects: Subjects) -> bundle_pb2.DirectionSet:
    """The stored directions. Raises CheckpointError when they do not fit the generator."""
    config = subjects.generator.config
    return load_directions(subjects.weights / DIRECTIONS_FILE, config.num_ws, config.w_dim)


def measure_directions(
    subjects: Subjects, directions: bundle_pb2.DirectionSet, faces: Faces
) -> None:
    """Replace the figures of every direction of the catalog, at its default strength."""
    named = {edit.name: edit for edit in EDITS}
    for entry in track(_of_catalog(directions), description="measuring directions"):
        strength = entry.default_strength
        place = (
            f"{len(faces)} held-out avatars at strength {strength:g}, "
            "read by the attribute classifier"
        )
        offsets = offsets_of(entry, subjects)
        effect = measure_edit(
            named[entry.name], offsets, faces, subjects.generator, subjects.judge, strength
        )
        del entry.figures[:]
        entry.figures.extend(_figure(f) for f in effect.figures(place))


def find_gains(subjects: Subjects, directions: bundle_pb2.DirectionSet, faces: Faces) -> None:
    """Scale every direction of the catalog so that strength 1 is enough, and no more, on these
    faces."""
    for entry in track(_of_catalog(directions), description="scaling directions"):
        gain = best_gain(_measure_of(entry, subjects, faces), floor=_WANTED_PRESERVATION)
        scaled = offsets_of(entry, subjects) * gain
        entry.offsets[:] = [round(v, 5) for v in scaled.flatten().tolist()]


def find_ranges(subjects: Subjects, directions: bundle_pb2.DirectionSet, faces: Faces) -> None:
    """Set the useful strengths of every direction of the catalog, by a sweep on these faces."""
    for entry in track(_of_catalog(directions), description="useful strengths"):
        measure = _measure_of(entry, subjects, faces)
        entry.min_strength, entry.max_strength = useful_range(measure, floor=_LEAST_PRESERVATION)


def _measure_of(entry: bundle_pb2.DirectionEntry, subjects: Subjects, faces: Faces) -> Measure:
    """Strength → success (or approach) and preservation on these faces."""
    edit = next(edit for edit in EDITS if edit.name == entry.name)
    offsets = offsets_of(entry, subjects)

    def measure(strength: float) -> tuple[float, float]:
        effect = measure_edit(edit, offsets, faces, subjects.generator, subjects.judge, strength)
        return effect.main, effect.preservation

    return measure


def is_measured(entry: bundle_pb2.DirectionEntry) -> bool:
    """Whether it has the figures of `measure_directions`: first its effect, then preservation."""
    return entry.method == SUPERVISED and len(entry.figures) >= 2


def offsets_of(entry: bundle_pb2.DirectionEntry, subjects: Subjects) -> Tensor:
    """Offsets [num_ws, w_dim] for strength 1 of a direction of W+."""
    config = subjects.generator.config
    return torch.tensor(list(entry.offsets)).view(config.num_ws, config.w_dim)


def _of_catalog(directions: bundle_pb2.DirectionSet) -> list[bundle_pb2.DirectionEntry]:
    names = {edit.name for edit in EDITS}
    return [d for d in directions.directions if d.method == SUPERVISED and d.name in names]


def _entry(edit: NamedEdit, offsets: Tensor) -> bundle_pb2.DirectionEntry:
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
        method=SUPERVISED,
        regions=edit.regions,
        offsets=[round(v, 5) for v in offsets.flatten().tolist()],
    )


def _figure(figure: Measured) -> bundle_pb2.Figure:
    return json_format.ParseDict(figure.rounded(), bundle_pb2.Figure())
