"""Whether an edit can be taken back: edit → decode → encode again → inverse edit → decode.

Everything is compared with the reconstruction without any edit, so that what inversion alone loses
does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from velatura.training.avatars.parts import OPTIONS
from velatura.training.classifier.reading import read_options, shown
from velatura.training.directions.catalog import NamedEdit
from velatura.training.evaluation.edits import Faces, decode_and_read
from velatura.training.evaluation.figures import Measured
from velatura.training.evaluation.subjects import Subjects
from velatura.training.generator.labels import psnr_db

# One of each kind of edit.
EXAMPLES = (
    "smile",
    "closed_eyes",
    "angry_brows",
    "glasses",
    "beard",
    "hair_blonde",
    "long_hair",
    "skin_brown",
    "clothing_red",
    "background_blue",
)
_BATCH = 32


@dataclass(frozen=True)
class Return:
    """There and back: how near the picture came, and which attributes read as at the start.

    `others` averages the attributes that the edit does not name; `edited` those that it does, None
    for a background.
    """

    psnr: float
    others: float
    edited: float | None


@torch.inference_mode()
def measure_return(edit: NamedEdit, offsets: Tensor, faces: Faces, subjects: Subjects) -> Return:
    """One edit at strength 1 and back; `offsets` [num_ws, w_dim]."""
    generator, encoder = subjects.generator, subjects.encoder
    again, psnr = [], 0.0
    for w_plus in torch.split(faces.w_plus, _BATCH):
        plain = generator.synthesis(w_plus).clamp(-1, 1)
        edited = generator.synthesis(w_plus + offsets).clamp(-1, 1)
        back = encoder(edited) - offsets
        psnr += psnr_db(generator.synthesis(back), plain) * len(w_plus)
        again.append(back)
    scores = decode_and_read(torch.cat(again), generator, subjects.judge)
    before, after = read_options(faces.scores), read_options(scores)
    visible = shown(read_options(faces.labels))
    same = {a: (before[a] == after[a])[visible[a]].float() for a in OPTIONS}
    others = torch.cat([same[a] for a in OPTIONS if a not in edit.target])
    edited_ones = [same[a] for a in edit.target]
    return Return(
        psnr / len(faces),
        float(others.mean()),
        float(torch.cat(edited_ones).mean()) if edited_ones else None,
    )


def consistency_figures(found: Mapping[str, Return], count: int) -> list[Measured]:
    """The averages over all edits that were tried."""
    returns = list(found.values())
    place = f"{count} held-out avatars, {len(returns)} edits there and back at strength 1"
    edited = [r.edited for r in returns if r.edited is not None]
    figures = [
        Measured("consistency/PSNR", sum(r.psnr for r in returns) / len(returns), "dB", place),
        Measured("consistency/others", sum(r.others for r in returns) / len(returns), "", place),
    ]
    if edited:
        figures.append(Measured("consistency/edited", sum(edited) / len(edited), "", place))
    return figures
