"""SeFa's and GANSpace's components under names that say what they do.

A component carries no name: it is only the way in which W, or the styles, vary most. So each
candidate is tried on sampled faces, the judge reads them before and after, and the candidate is
called after the attribute that changes on most of them. Few are pure: the description says what
else changes, and the figures say how often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from velatura.export.directions import ganspace, sefa
from velatura.export.latents import sample_w
from velatura.export.networks.stylegan2 import Generator
from velatura.training.avatars.parts import OPTIONS, label_slices
from velatura.training.classifier.reading import read_options
from velatura.training.directions.strengths import useful_range
from velatura.v1 import bundle_pb2

Judge = Callable[[Tensor], Tensor]
"""Images [N, 3, R, R] in [-1, 1] → scores [N, LABEL_DIM], the leading option being what is seen."""

BANDS = {"coarse": (0, 4), "middle": (4, 8), "fine": (8, 12)}
METHODS = {"sefa": sefa.find_directions, "ganspace": ganspace.find_directions}
_PSI = 0.7
_SEED = 20_000  # of the sampled faces
_BATCH = 16
_STRENGTHS = (1.5, 2.5, 3.5)  # in standard deviations, tried in this order
_CLEAR = 0.5  # share of faces that a component's own attribute should change on
_VISIBLE = 0.3  # below, a name would promise what is hardly ever seen
_FLOOR = 0.7  # least share of the other attributes left, within the useful range
_BACKGROUND_CHANGE = 0.2  # of [-1, 1], mean of the six numbers: 25 of 255 levels


@dataclass(frozen=True)
class SampledFaces:
    """Latents [N, num_ws, w_dim] of random faces, and the judge's scores [N, LABEL_DIM]."""

    w_plus: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Component:
    """A candidate at the strength (in deviations) at which it shows; `changes` are shares 0 to 1.

    `band` is coarse, middle or fine; `attribute` changes on the greatest share of faces.
    """

    entry: bundle_pb2.DirectionEntry
    band: str
    strength: float
    changes: Mapping[str, float]

    @property
    def attribute(self) -> str:
        return max(self.changes, key=lambda name: self.changes[name])

    @property
    def purity(self) -> float:
        """The share of its own attribute less that of the next: 1 changes it alone, always."""
        own, following, *_ = sorted(self.changes.values(), reverse=True)
        return own - following


def named_components(
    generator: Generator, judge: Judge, *, per_method: int = 5, ranks: int = 8, faces: int = 16
) -> list[bundle_pb2.DirectionEntry]:
    """`per_method` directions of each method, the purest first, for the generator of avatars.

    Candidates are the leading `ranks` components of the coarse, middle and fine layers. One for
    each attribute is taken as far as there are enough. Strength 1 is where it shows.
    """
    sampled = sample_faces(generator, judge, faces)
    named = []
    for method in METHODS:
        found = [
            _tried(c, generator, judge, sampled) for c in _candidates(method, generator, ranks)
        ]
        chosen = choose(found, per_method)
        named += [
            _named(each, name, generator, judge, sampled)
            for each, name in zip(chosen, component_names(method, chosen), strict=True)
        ]
    return named


@torch.inference_mode()
def sample_faces(generator: Generator, judge: Judge, count: int) -> SampledFaces:
    """Random faces at psi 0.7."""
    w = sample_w(generator.mapping, count, seed=_SEED)  # [N, w_dim]
    average = generator.mapping.w_avg
    w_plus = (average + _PSI * (w - average))[:, None].repeat(1, generator.config.num_ws, 1)
    return SampledFaces(w_plus, _read(generator, judge, w_plus))


def changed(before: Tensor, after: Tensor) -> dict[str, float]:
    """Share of faces on which each attribute reads otherwise; scores [N, LABEL_DIM]."""
    was, now = read_options(before), read_options(after)
    shares = {a: float((was[a] != now[a]).float().mean()) for a in OPTIONS}
    place = label_slices()["background"]
    moved = (before[:, place] - after[:, place]).abs().mean(dim=1)  # [N]
    return {**shares, "background": float((moved > _BACKGROUND_CHANGE).float().mean())}


def choose(found: Sequence[Component], count: int) -> list[Component]:
    """The purest ones, no attribute twice as long as another is left to be seen."""
    ranked = sorted(found, key=lambda each: -each.purity)
    visible = [each for each in ranked if each.changes[each.attribute] >= _VISIBLE]
    first: list[Component] = []
    for each in visible:
        if each.attribute not in [taken.attribute for taken in first]:
            first.append(each)
    again = [each for each in visible if each not in first]
    hidden = [each for each in ranked if each not in visible]
    return (first + again + hidden)[:count]


def component_names(method: str, chosen: Sequence[Component]) -> list[str]:
    """METHOD_BAND_ATTRIBUTE, numbered from the second of the same name."""
    stems = [f"{method}_{each.band}_{each.attribute}" for each in chosen]
    earlier = [stems[:place].count(stem) for place, stem in enumerate(stems)]
    return [f"{s}_{n + 1}" if n else s for s, n in zip(stems, earlier, strict=True)]


def _candidates(
    method: str, generator: Generator, ranks: int
) -> Iterator[tuple[str, bundle_pb2.DirectionEntry]]:
    """The band and the entry, strength 1 being one deviation."""
    for band, (start, end) in BANDS.items():
        layers = (start, min(end, generator.config.num_ws))
        if layers[0] < layers[1]:
            for entry in METHODS[method](generator, ranks, layers=layers):
                yield band, entry


def _tried(
    candidate: tuple[str, bundle_pb2.DirectionEntry],
    generator: Generator,
    judge: Judge,
    faces: SampledFaces,
) -> Component:
    """The candidate at the first strength at which its attribute is clear, or at the last."""
    band, entry = candidate
    found = None
    for strength in _STRENGTHS:
        pushed = [
            changed(faces.scores, _pushed(entry, sign * strength, generator, judge, faces))
            for sign in (1, -1)
        ]
        changes = {name: (pushed[0][name] + pushed[1][name]) / 2 for name in pushed[0]}
        found = Component(entry, band, strength, changes)
        if changes[found.attribute] >= _CLEAR:
            break
    assert found is not None  # noqa: S101 - there are strengths
    return found


def _named(
    found: Component, name: str, generator: Generator, judge: Judge, faces: SampledFaces
) -> bundle_pb2.DirectionEntry:
    """The entry under its name, strength 1 being where it shows, with the measured range."""
    named = bundle_pb2.DirectionEntry()
    named.CopyFrom(found.entry)
    unit, own = found.strength, found.attribute

    def measure(strength: float) -> tuple[float, float]:
        scores = _pushed(found.entry, strength * unit, generator, judge, faces)
        shares = changed(faces.scores, scores)
        others = [share for attribute, share in shares.items() if attribute != own]
        return shares[own], 1 - sum(others) / len(others)

    # A component has no good and bad end: both are swept like the upper end of a supervised one.
    _, high = useful_range(measure, floor=_FLOOR)
    _, low = useful_range(lambda strength: measure(-strength), floor=_FLOOR)
    named.name, named.attribute, named.default_strength = name, own, 1
    named.min_strength, named.max_strength = -low, high
    del named.offsets[:]
    named.offsets.extend(round(value * unit, 5) for value in found.entry.offsets)
    also = sorted(found.changes.items(), key=lambda item: -item[1])[1:3]
    others = ", ".join(f"{attribute.replace('_', ' ')} on {share:.0%}" for attribute, share in also)
    named.description = (
        f"{found.entry.description} Changes {own.replace('_', ' ')} on "
        f"{found.changes[own]:.0%} of faces; {others}."
    )
    place = f"{len(faces.scores)} samples at psi {_PSI}, strengths 1 and -1"
    rest = [share for attribute, share in found.changes.items() if attribute != own]
    kept = 1 - sum(rest) / len(rest)
    share = next(f for f in found.entry.figures if f.name == "share of variation")
    del named.figures[:]
    named.figures.extend(
        [
            share,
            bundle_pb2.Figure(
                name=f"changed/{own}", value=round(found.changes[own], 4), measured_on=place
            ),
            bundle_pb2.Figure(name="preservation", value=round(kept, 4), measured_on=place),
        ]
    )
    return named


@torch.inference_mode()
def _pushed(
    entry: bundle_pb2.DirectionEntry,
    strength: float,
    generator: Generator,
    judge: Judge,
    faces: SampledFaces,
) -> Tensor:
    """Scores [N, LABEL_DIM] after a move of the entry's own layers."""
    moved = faces.w_plus.clone()
    offset = torch.tensor(list(entry.offsets)) * strength  # [w_dim]: one row of W
    moved[:, entry.layer_start : entry.layer_end] += offset
    return _read(generator, judge, moved)


def _read(generator: Generator, judge: Judge, w_plus: Tensor) -> Tensor:
    parts = torch.split(w_plus, _BATCH)
    return torch.cat([judge(generator.synthesis(part).clamp(-1, 1)) for part in parts])
