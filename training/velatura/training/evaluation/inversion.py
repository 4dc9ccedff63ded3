"""How well an avatar comes back from its latents: encode → generate against the input."""

from __future__ import annotations

import torch
from torch import nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

from velatura.export.networks.encoder import Encoder
from velatura.export.networks.stylegan2 import Generator
from velatura.training.avatars.dataset import avatar_batch
from velatura.training.avatars.layers import LayerSet
from velatura.training.avatars.parts import OPTIONS
from velatura.training.classifier.reading import Reading, read_options, shown
from velatura.training.evaluation.figures import Measured, held_out_seeds
from velatura.training.generator.labels import psnr_db

_BATCH = 32


@torch.inference_mode()
def evaluate_inversion(
    generator: Generator, encoder: Encoder, judge: nn.Module, layers: LayerSet, count: int = 500
) -> list[Measured]:
    """PSNR, MS-SSIM, and on how many faces the judge reads the same option before and after.

    MS-SSIM (Wang et al. 2003) with windows of 5 instead of 11 pixels: the fifth scale of a 128 px
    image is 8 pixels wide. `kept` is the average over the attributes.
    """
    place = f"{count} held-out avatars, {layers.resolution} px"
    psnr = similarity = 0.0
    scores, remade_scores, truths = [], [], []
    for seeds in torch.split(torch.tensor(held_out_seeds(count)), _BATCH):
        images, labels = avatar_batch(seeds.tolist(), layers)
        made = generator.synthesis(encoder(images)).clamp(-1, 1)
        psnr += psnr_db(made, images) * len(images)
        similarity += float(ms_ssim(made, images, data_range=2.0, kernel_size=5, reduction="sum"))
        scores.append(judge(images))
        remade_scores.append(judge(made))
        truths.append(labels)
    visible = shown(read_options(torch.cat(truths)))
    before, after = read_options(torch.cat(scores)), read_options(torch.cat(remade_scores))
    kept = agreement(before, after, visible)
    judged = f"{place}, read by the attribute classifier"
    return [
        Measured("PSNR", psnr / count, "dB", place),
        Measured("MS-SSIM", similarity / count, "", place),
        Measured("kept", sum(kept.values()) / len(kept), "", judged),
        *(Measured(f"kept/{attribute}", kept[attribute], "", judged) for attribute in OPTIONS),
    ]


def agreement(before: Reading, after: Reading, counted: Reading) -> dict[str, float]:
    """Share of the counted faces on which each attribute reads alike; 1 where none is counted."""
    found = {}
    for attribute in OPTIONS:
        same = (before[attribute] == after[attribute])[counted[attribute]]
        found[attribute] = float(same.float().mean()) if len(same) else 1.0
    return found
