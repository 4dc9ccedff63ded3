"""Edits of W+ latents: named directions, raw offsets, layers of a reference.

A step is what the caller asks for; a move is what it comes to for one generator. Steps are checked
as a whole before any network runs, so that a bad one costs nothing and every bad one is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from velatura.server.imaging.picture import F32, Picture
from velatura.server.pipelines.encode import encode_centre
from velatura.server.pipelines.errors import InvalidRequest, UnknownThing, Violation
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.workers import every
from velatura.v1.bundle_pb2 import DirectionEntry, GeneratorEntry


@dataclass(frozen=True, slots=True)
class Layers:
    """W+ layers start..end-1; `field` is the range's path in the request."""

    start: int
    end: int
    field: str


@dataclass(frozen=True, slots=True)
class DirectionStep:
    """Move along a named direction: those of its own layers that `layers` has, all when None."""

    name: str
    strength: float
    layers: Layers | None
    field: str


@dataclass(frozen=True, slots=True, eq=False)
class OffsetStep:
    """Add `values` (float32, 1, w_dim or layers × w_dim of them) to `layers`."""

    layers: Layers
    values: F32
    field: str


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceStep:
    """Take layers of another image; `source` is a picture or W+ latents [num_ws, w_dim]."""

    source: Picture | F32
    layers: Layers | None
    strength: float
    field: str


Step: TypeAlias = DirectionStep | OffsetStep | ReferenceStep


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """w ← w + offset + pull · (target − w); each float32 [num_ws, w_dim] (pull [num_ws, 1])."""

    offset: F32
    pull: F32
    target: F32


def check_steps(
    steps: Sequence[Step], generator: GeneratorEntry, directions: Mapping[str, DirectionEntry]
) -> None:
    """Refuse layers and offsets that do not fit the generator, directions that it does not have,
    and layers that a direction has nothing in.

    Raises `InvalidRequest` with every violation, or `UnknownThing`.
    """
    violations = [bad for step in steps for bad in _violations(step, generator)]
    if violations:
        raise InvalidRequest(violations)
    for step in steps:
        if isinstance(step, DirectionStep) and step.name not in directions:
            raise UnknownThing("direction", step.name, sorted(directions), f"{step.field}.name")
    still = [
        bad
        for step in steps
        if isinstance(step, DirectionStep)
        for bad in _moves_nothing(step, directions[step.name])
    ]
    if still:
        raise InvalidRequest(still)


def _moves_nothing(step: DirectionStep, entry: DirectionEntry) -> list[Violation]:
    """An answer without any edit would look as if the direction did not work."""
    layers = step.layers
    if layers is None or max(layers.start, entry.layer_start) < min(layers.end, entry.layer_end):
        return []
    problem = (
        f"the direction {step.name!r} moves layers {entry.layer_start}..{entry.layer_end}, and "
        f"{layers.start}..{layers.end} has none of them. Choose layers within its own, or leave "
        "layers out."
    )
    return [Violation(layers.field, problem)]


def _violations(step: Step, generator: GeneratorEntry) -> list[Violation]:
    layers = step.layers
    if layers is not None:
        if layers.start >= layers.end:
            problem = (
                f"the range {layers.start}..{layers.end} is empty. Make end greater than start."
            )
            return [Violation(layers.field, problem)]
        if layers.end > generator.num_ws:
            problem = (
                f"{layers.end} is beyond the generator's {generator.num_ws} layers. "
                f"Use at most {generator.num_ws}."
            )
            return [Violation(f"{layers.field}.end", problem)]
    if isinstance(step, OffsetStep):
        count, dims = step.layers.end - step.layers.start, generator.w_dim
        if step.values.size not in (1, dims, count * dims):
            problem = (
                f"{step.values.size} numbers do not fit {count} layers of {dims} dimensions. "
                f"Give 1, {dims} or {count * dims}."
            )
            return [Violation(f"{step.field}.values", problem)]
    return []


async def moves_of(
    job: Job,
    steps: Sequence[Step],
    generator: GeneratorEntry,
    directions: Mapping[str, DirectionEntry],
) -> list[Move]:
    """The moves of steps that `check_steps` has passed, in order; reference pictures are encoded
    side by side."""
    return await every([_move(job, step, generator, directions) for step in steps])


async def _move(
    job: Job, step: Step, generator: GeneratorEntry, directions: Mapping[str, DirectionEntry]
) -> Move:
    shape = (generator.num_ws, generator.w_dim)
    offset, target = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    pull = np.zeros((generator.num_ws, 1), np.float32)
    match step:
        case DirectionStep():
            entry = directions[step.name]
            start, end = entry.layer_start, entry.layer_end
            if step.layers is not None:  # the part of the direction's own that was asked for
                start, end = max(start, step.layers.start), min(end, step.layers.end)
            rows = slice(start, end)
            full = np.asarray(entry.offsets, np.float32).reshape(shape)  # [num_ws, w_dim]
            offset[rows] = step.strength * full[rows]
        case OffsetStep():
            rows = slice(step.layers.start, step.layers.end)
            # One number, one row or all rows: [1], [w_dim] or [layers, w_dim].
            offset[rows] = (
                step.values.reshape(-1, generator.w_dim)
                if step.values.size > 1
                else float(step.values[0])
            )
        case ReferenceStep():
            rows = slice(step.layers.start, step.layers.end) if step.layers else slice(None)
            if isinstance(step.source, Picture):
                target = await encode_centre(job, step.source, generator)
            else:
                target = step.source
            pull[rows] = step.strength
    return Move(offset, pull, target)


def apply(moves: Sequence[Move], w_plus: F32) -> F32:
    """Latents [..., num_ws, w_dim] after the moves, in order; the input is left as it is."""
    for move in moves:
        w_plus = w_plus + move.offset + move.pull * (move.target - w_plus)
    return w_plus.astype(np.float32)
