"""The whole evaluation, in the order of the report, and where its results go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from velatura.export.directions.text import write_direction_set
from velatura.training.avatars.dataset import avatar_batch
from velatura.training.classifier.train import accuracies
from velatura.training.directions.catalog import EDITS, NamedEdit
from velatura.training.directions.unsupervised import named_components
from velatura.training.evaluation import pictures, plots
from velatura.training.evaluation.classes import evaluate_classes
from velatura.training.evaluation.consistency import (
    EXAMPLES,
    Return,
    consistency_figures,
    measure_return,
)
from velatura.training.evaluation.directions import (
    DIRECTIONS_FILE,
    find_directions,
    find_gains,
    find_ranges,
    measure_directions,
    offsets_of,
    read_directions,
)
from velatura.training.evaluation.document import (
    LEAST_IOU,
    PRESERVATION,
    SUCCESS,
    Evaluation,
    write_document,
)
from velatura.training.evaluation.edits import Faces, encode_faces
from velatura.training.evaluation.extractor import domain_extractor, inception_extractor
from velatura.training.evaluation.figures import Measured, held_out_seeds
from velatura.training.evaluation.inversion import evaluate_inversion
from velatura.training.evaluation.path_length import path_length_figures
from velatura.training.evaluation.samples import draw_samples, measure_samples, sample_figures
from velatura.training.evaluation.segmentation import evaluate_segmenter
from velatura.training.evaluation.subjects import JUDGE_FILE, Subjects, load_subjects
from velatura.training.evaluation.sweep import STRENGTHS, SWEPT, sweep_strengths
from velatura.training.evaluation.tables import print_tables
from velatura.v1 import bundle_pb2

FIGURES_FILE = "figures.json"
_RANGE_SEED = 6_000


@dataclass(frozen=True)
class EvaluationSettings:
    """What to measure and on how many avatars; `out` None writes the figures alone."""

    weights: Path
    count: int = 500
    pairs: int = 96
    faces: int = 100
    samples: int = 2000
    paths: int = 500
    swept: int = 32
    inception: Path | None = None
    out: Path | None = None
    edits: tuple[NamedEdit, ...] = EDITS
    range_faces: int = 32
    components: int = 5  # of SeFa and of GANSpace each
    keep_directions: bool = False

    def quick(self) -> EvaluationSettings:
        """The same on a few avatars: everything runs, no figure means much."""
        return replace(
            self,
            count=8,
            pairs=2,
            faces=8,
            samples=16,
            paths=8,
            swept=8,
            range_faces=2,
            components=0,
        )


def run_evaluation(settings: EvaluationSettings) -> Evaluation:
    """Measure, write avatar-directions.json and figures.json beside the weights, print, report.

    Raises CheckpointError when weights are missing, ValueError when Inception's do not fit.
    """
    extractor = (
        inception_extractor(settings.inception)
        if settings.inception
        else domain_extractor(settings.weights / JUDGE_FILE)
    )
    subjects = load_subjects(settings.weights)
    directions = _directions(subjects, settings)
    faces = encode_faces(held_out_seeds(settings.faces), subjects)
    measure_directions(subjects, directions, faces)
    returns = _there_and_back(subjects, directions, faces)
    likeness = measure_samples(subjects.generator, subjects.layers, extractor, settings.samples)
    generator, encoder, judge = subjects.generator, subjects.encoder, subjects.judge
    evaluation = Evaluation(
        count=settings.count,
        judge=accuracies(judge, *avatar_batch(held_out_seeds(settings.count), subjects.layers)),
        inversion=evaluate_inversion(generator, encoder, judge, subjects.layers, settings.count),
        directions=directions,
        returns=returns,
        consistency=consistency_figures(returns, len(faces)),
        segmenters={
            name: evaluate_segmenter(network, subjects.layers, settings.count)
            for name, network in subjects.segmenters.items()
        },
        likeness=likeness,
        samples=sample_figures(likeness, settings.samples, extractor),
        paths=path_length_figures(generator, judge, settings.paths),
        classes=evaluate_classes(settings.weights, judge, min(settings.count, 200)),
    )
    _write_figures(settings.weights, evaluation)
    print_tables(evaluation)
    if settings.out is not None:
        _write_report(settings.out, settings, subjects, evaluation, faces)
    return evaluation


def _directions(subjects: Subjects, settings: EvaluationSettings) -> bundle_pb2.DirectionSet:
    """The stored ones, or new ones: supervised with their useful strengths, and components."""
    if settings.keep_directions:
        return read_directions(subjects)
    directions = find_directions(subjects, settings.edits, settings.pairs)
    # On training avatars: the held-out ones only measure what is already decided.
    faces = encode_faces(range(_RANGE_SEED, _RANGE_SEED + settings.range_faces), subjects)
    find_gains(subjects, directions, faces)
    find_ranges(subjects, directions, faces)
    if settings.components:
        directions.directions.extend(
            named_components(subjects.generator, subjects.judge, per_method=settings.components)
        )
    return directions


def _there_and_back(
    subjects: Subjects, directions: bundle_pb2.DirectionSet, faces: Faces
) -> dict[str, Return]:
    edits = {edit.name: edit for edit in EDITS}
    return {
        entry.name: measure_return(edits[entry.name], offsets_of(entry, subjects), faces, subjects)
        for entry in directions.directions
        if entry.name in EXAMPLES
    }


def _write_figures(weights: Path, found: Evaluation) -> None:
    """Each network's figures under its name in the bundle, and the directions with theirs."""
    rows: Mapping[str, list[Measured]] = {
        "avatar-synthesis": [*found.samples, *found.paths],
        "avatar-encoder": [*found.inversion, *found.consistency],
        **found.segmenters,
        **found.classes,
    }
    text = json.dumps({name: [f.rounded() for f in row] for name, row in rows.items()}, indent=1)
    (weights / FIGURES_FILE).write_text(text + "\n")
    write_direction_set(weights / DIRECTIONS_FILE, found.directions)


def _write_report(
    folder: Path,
    settings: EvaluationSettings,
    subjects: Subjects,
    found: Evaluation,
    faces: Faces,
) -> None:
    """evaluation.md with its charts and pictures under `folder`."""
    images = folder / "images" / "evaluation"
    few = Faces(*(t[: settings.swept] for t in (faces.w_plus, faces.scores, faces.labels)))
    curves = sweep_strengths(subjects, found.directions, few)
    plots.plot_directions(images / "directions.png", found.directions, SUCCESS, PRESERVATION)
    plots.plot_iou(images / "segmenters.png", found.segmenters, LEAST_IOU)
    plots.plot_sweep(images / "sweep.png", curves)
    pictures.save_reconstructions(images / "reconstructions.png", subjects)
    pictures.save_strengths(
        images / "strengths.png", subjects, found.directions, faces, SWEPT, STRENGTHS
    )
    pictures.save_samples(images / "samples.png", draw_samples(subjects.generator, 30, 0.7))
    write_document(folder / "evaluation.md", found)
