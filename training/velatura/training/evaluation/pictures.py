"""The report's pictures of faces: reconstructions, edits at rising strength, samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from velatura.training.avatars.dataset import avatar_batch
from velatura.training.evaluation.directions import offsets_of
from velatura.training.evaluation.edits import Faces
from velatura.training.evaluation.figures import held_out_seeds
from velatura.training.evaluation.subjects import Subjects
from velatura.v1 import bundle_pb2

_COLUMNS = 10
_THUMBNAIL = 96  # pixels
_COLOURS = 128


def save_thumbnails(path: Path, images: Tensor, columns: int) -> None:
    """Write `images` [N, 3, H, W] in [-1, 1] small, with few colours: a file for a repository."""
    small = F.interpolate(images, (_THUMBNAIL, _THUMBNAIL), mode="bilinear", antialias=True)
    grid = make_grid(small.clamp(-1, 1), nrow=columns, padding=2, pad_value=1.0)
    pixels = ((grid + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)  # [H, W, 3]
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels.numpy())
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


@torch.inference_mode()
def save_reconstructions(path: Path, subjects: Subjects) -> None:
    """Held-out avatars above, what comes back from their latents below."""
    images, _ = avatar_batch(held_out_seeds(_COLUMNS), subjects.layers)
    made = subjects.generator.synthesis(subjects.encoder(images))
    save_thumbnails(path, torch.cat([images, made]), _COLUMNS)


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
        save_thumbnails(path, torch.cat(rows), len(strengths))


def save_samples(path: Path, pictures: Tensor) -> None:
    """The first samples of uint8 [N, 3, R, R]."""
    save_thumbnails(path, pictures[: 4 * _COLUMNS].float() / 127.5 - 1, _COLUMNS)
