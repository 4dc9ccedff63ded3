"""Measures the avatar networks on held-out avatars; the figures go into the bundle's manifest.

Everything runs on renders whose seeds training never draws (1,000,000 and up). Attributes are read
back by the encoder: an edit counts as a success when the encoder, looking at the edited picture,
sees the wanted option in the lead. Known limit: this encoder was trained together with the
generator, so it is a lenient judge; an independent classifier would be a stricter one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

from velatura.export.networks.encoder import Encoder
from velatura.export.networks.stylegan2 import Generator
from velatura.training.avatars.compose import HELD_OUT_SEED, label_vector, sample_avatar
from velatura.training.avatars.dataset import avatar_batch, segmented_avatars
from velatura.training.avatars.layers import LayerSet
from velatura.training.avatars.parts import LABEL_DIM, OPTIONS, label_slices
from velatura.training.directions.catalog import NamedEdit
from velatura.training.directions.supervised import apply_edit
from velatura.training.generator.labels import LabelMapping, psnr_db
from velatura.training.segmenter import metrics

_BATCH = 32


@dataclass(frozen=True)
class Measured:
    """One figure, as the manifest holds it."""

    name: str
    value: float
    unit: str
    measured_on: str


def _held_out_seeds(count: int) -> range:
    return range(HELD_OUT_SEED, HELD_OUT_SEED + count)


@torch.inference_mode()
def evaluate_inversion(
    generator: Generator, encoder: Encoder, layers: LayerSet, count: int = 200
) -> list[Measured]:
    """encode → generate against the input: PSNR, MS-SSIM, and how many attributes survive.

    MS-SSIM (Wang et al. 2003) with windows of 5 instead of 11 pixels: the fifth scale of a 128 px
    image is 8 pixels wide.
    """
    images, labels = avatar_batch(_held_out_seeds(count), layers)
    place = f"{count} held-out avatars, {layers.resolution} px"
    mapping = LabelMapping(LABEL_DIM, generator.config.w_dim)
    psnr, similarity, seen = [], [], []
    for batch in torch.split(images, _BATCH):
        made = generator.synthesis(encoder(batch)).clamp(-1, 1)
        psnr.append(psnr_db(made, batch) * len(batch))
        index = ms_ssim(made, batch, data_range=2.0, kernel_size=5, reduction="sum")
        similarity.append(float(index))
        seen.append(mapping.labels_of(encoder(made)[:, 0]))
    read_back = torch.cat(seen)
    figures = [
        Measured("PSNR", sum(psnr) / count, "dB", place),
        Measured("MS-SSIM", sum(similarity) / count, "", place),
    ]
    for attribute, span in label_slices().items():
        if attribute != "background":
            hits = read_back[:, span].argmax(1) == labels[:, span].argmax(1)
            figures.append(Measured(f"kept/{attribute}", float(hits.float().mean()), "", place))
    return figures


@torch.inference_mode()
def evaluate_direction(
    edit: NamedEdit,
    offsets: Tensor,
    generator: Generator,
    encoder: Encoder,
    layers: LayerSet,
    count: int = 64,
) -> list[Measured]:
    """Success and preservation of one direction at strength 1.

    Success: share of held-out faces on which every attribute of the edit reads as wanted, or, for a
    background, the mean drop of the distance to the wanted colour. Preservation: share of the other
    attributes that read as before.
    """
    images, _ = avatar_batch(_held_out_seeds(count), layers)
    place = f"{count} held-out avatars at strength 1"
    mapping = LabelMapping(LABEL_DIM, generator.config.w_dim)
    w_plus = encoder(images)
    before = mapping.labels_of(encoder(generator.synthesis(w_plus).clamp(-1, 1))[:, 0])
    edited = generator.synthesis(w_plus + offsets).clamp(-1, 1)
    after = mapping.labels_of(encoder(edited)[:, 0])
    slices = label_slices()
    kept, success = [], torch.ones(count, dtype=torch.bool)
    for attribute in OPTIONS:
        now = after[:, slices[attribute]].argmax(1)
        if attribute in edit.target:
            wanted = list(OPTIONS[attribute]).index(edit.target[attribute])
            success &= now == wanted
        else:
            kept.append(now == before[:, slices[attribute]].argmax(1))
    figures = [Measured("preservation", float(torch.stack(kept).float().mean()), "", place)]
    if edit.background is None:
        return [Measured("success", float(success.float().mean()), "", place), *figures]
    goal = torch.from_numpy(label_vector(apply_edit(edit, sample_avatar(0))))[slices["background"]]
    distance = [(labels[:, slices["background"]] - goal).norm(dim=1) for labels in (before, after)]
    drop = 1 - float(distance[1].mean() / distance[0].mean())
    return [Measured("approach", drop, "", place), *figures]


def evaluate_segmenter(network: nn.Module, layers: LayerSet, count: int = 200) -> list[Measured]:
    """mIoU and the IoU of each class."""
    data = segmented_avatars(HELD_OUT_SEED, count, layers)
    place = f"{count} held-out avatars, {layers.resolution} px"
    return [Measured(n, v, "", place) for n, v in metrics.evaluate(network, data).items()]
