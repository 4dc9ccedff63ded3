"""Whether an edit does what its name says, and leaves the rest alone, by the judge's reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from velatura.export.networks.stylegan2 import Generator
from velatura.training.avatars.compose import label_vector, sample_avatar
from velatura.training.avatars.dataset import avatar_batch
from velatura.training.avatars.parts import OPTIONS, label_slices
from velatura.training.classifier.reading import Reading, read_options, shown
from velatura.training.directions.catalog import NamedEdit
from velatura.training.directions.supervised import apply_edit
from velatura.training.evaluation.figures import Measured
from velatura.training.evaluation.subjects import Subjects

_BATCH = 32


@dataclass(frozen=True)
class Faces:
    """Avatars in latent space, and how the judge reads them before any edit."""

    w_plus: Tensor  # [N, num_ws, w_dim]
    scores: Tensor  # [N, LABEL_DIM], of the reconstructions
    labels: Tensor  # [N, LABEL_DIM], true

    def __len__(self) -> int:
        return len(self.w_plus)


@dataclass(frozen=True)
class Effect:
    """What one edit did: `success` for options, `approach` for a background, and `preservation`."""

    success: float | None
    approach: float | None
    preservation: float

    @property
    def main(self) -> float:
        """Success or approach, whichever it is."""
        return self.approach if self.approach is not None else self.success or 0.0

    def figures(self, place: str) -> list[Measured]:
        name = "success" if self.approach is None else "approach"
        return [
            Measured(name, self.main, "", place),
            Measured("preservation", self.preservation, "", place),
        ]


@torch.inference_mode()
def encode_faces(seeds: Sequence[int], subjects: Subjects) -> Faces:
    """Encode the avatars of these seeds and read their reconstructions."""
    images, labels = avatar_batch(seeds, subjects.layers)
    w_plus = torch.cat([subjects.encoder(part) for part in torch.split(images, _BATCH)])
    return Faces(w_plus, decode_and_read(w_plus, subjects.generator, subjects.judge), labels)


@torch.inference_mode()
def decode_and_read(w_plus: Tensor, generator: Generator, judge: nn.Module) -> Tensor:
    """Scores [N, LABEL_DIM] of the pictures that these latents [N, num_ws, w_dim] stand for."""
    parts = torch.split(w_plus, _BATCH)
    return torch.cat([judge(generator.synthesis(part).clamp(-1, 1)) for part in parts])


def measure_edit(
    edit: NamedEdit,
    offsets: Tensor,
    faces: Faces,
    generator: Generator,
    judge: nn.Module,
    strength: float = 1.0,
) -> Effect:
    """Decode `faces` moved by `strength` times `offsets` [num_ws, w_dim] and compare the readings.

    Success: share of faces on which every attribute of the edit reads as wanted. Approach, for a
    background: by how much its mean distance to the wanted colours fell. Preservation: share of the
    other attributes that read as on the reconstruction without the edit.
    """
    after = decode_and_read(faces.w_plus + strength * offsets, generator, judge)
    preserved = preservation(edit, faces, after)
    if edit.background is not None:
        return Effect(None, approach(edit, faces.scores, after), preserved)
    return Effect(float(succeeded(edit, after).float().mean()), None, preserved)


def succeeded(edit: NamedEdit, scores: Tensor) -> Tensor:
    """Whether every attribute of the edit reads as wanted, bool [N]."""
    read = read_options(scores)
    wanted = torch.ones(len(scores), dtype=torch.bool)
    for attribute, option in edit.target.items():
        wanted &= read[attribute] == list(OPTIONS[attribute]).index(option)
    return wanted


def preservation(edit: NamedEdit, faces: Faces, scores: Tensor) -> float:
    """Share of the attributes beside the edit's own that read as before, where they show."""
    before, after = read_options(faces.scores), read_options(scores)
    truth = read_options(faces.labels)
    visible, still = shown(truth), shown(truth | _wanted(edit, len(faces)))
    kept = [(before[a] == after[a])[visible[a] & still[a]] for a in OPTIONS if a not in edit.target]
    return float(torch.cat(kept).float().mean())


def approach(edit: NamedEdit, before: Tensor, after: Tensor) -> float:
    """1 when the background has arrived at the wanted colours, 0 when it came no nearer."""
    place = label_slices()["background"]
    goal = torch.from_numpy(label_vector(apply_edit(edit, sample_avatar(0))))[place]
    distance = [(scores[:, place] - goal).norm(dim=1).mean() for scores in (before, after)]
    return 1 - float(distance[1] / distance[0])


def _wanted(edit: NamedEdit, count: int) -> Reading:
    return {
        attribute: torch.full((count,), list(OPTIONS[attribute]).index(option))
        for attribute, option in edit.target.items()
    }
