"""The report's pictures of faces: reconstructions, edits at rising strength, samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from velatura.export.pictures import save_pictures
from velatura.training.avatars.dataset import avatar_batch
from velatura.training.evaluation.directions import offsets_of
from velatura.training.evaluation.edits import Faces
from velatura.training.evaluation.figures import held_out_seeds
from velatura.training.evaluation.subjects import Subjects
from velatura.v1 import bundle_pb2

_COLUMNS = 10


@torch.inference_mode()
def save_reconstructions(path: Path, subjects: Subjects) -> None:
    """Held-out avatars above, what comes back from their latents below."""
    images, _ = avatar_batch(held_out_seeds(_COLUMNS), subjects.layers)
    made = subjects.generator.synthesis(subjects.encoder(images))
    save_pictures(path, torch.cat([images, made]), _COLUMNS)


@torch.inference_mode()
def save_strengths(
    path: Path,
    subjects: Subjects,
    directions: bundle_pb2.DirectionSet,
    faces: Faces,
    names: Sequence[str],
    strengths: Sequence[float],
) -> None:
    """A row for each direction: another face moved by each strength."""
    rows = []
    chosen = [d for d in directions.directions if d.name in names]
    for i, entry in enumerate(chosen):
        steps = torch.tensor(strengths).view(-1, 1, 1)
        moved = faces.w_plus[i % len(faces)] + steps * offsets_of(entry, subjects)
        rows.append(subjects.generator.synthesis(moved))  # [strengths, 3, R, R]
    if rows:
        save_pictures(path, torch.cat(rows), len(strengths))


def save_samples(path: Path, pictures: Tensor) -> None:
    """The first samples of uint8 [N, 3, R, R]."""
    save_pictures(path, pictures[: 3 * _COLUMNS].float() / 127.5 - 1, _COLUMNS)
