"""Avatars as the data sets that the training loops take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from velatura.training.avatars.compose import (
    HELD_OUT_SEED,
    compose_images,
    compose_masks,
    label_vector,
    sample_avatar,
)
from velatura.training.avatars.layers import LayerSet
from velatura.training.avatars.parts import MASK_CLASSES
from velatura.training.segmenter.labelled_images import LabelledImages

_CHUNK = 64  # avatars composed at once: bounds the memory of the floats in between


def avatar_batch(seeds: Sequence[int], layers: LayerSet) -> tuple[Tensor, Tensor]:
    """Images float32 [N, 3, R, R] in [-1, 1] and label vectors float32 [N, L] of these seeds."""
    avatars = [sample_avatar(seed) for seed in seeds]
    labels = torch.stack([torch.from_numpy(label_vector(a)) for a in avatars])
    return compose_images(avatars, layers).float() / 127.5 - 1, labels


def avatar_batches(layers: LayerSet, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless training batches of `avatar_batch`; their seeds stay under the held-out ones."""
    rng = torch.Generator().manual_seed(seed)
    while True:
        seeds = torch.randint(HELD_OUT_SEED, (batch,), generator=rng).tolist()
        yield avatar_batch(seeds, layers)


def segmented_avatars(first_seed: int, count: int, layers: LayerSet) -> LabelledImages:
    """`count` consecutive seeds with their exact masks, for the segmenter."""
    images, masks = [], []
    for start in range(first_seed, first_seed + count, _CHUNK):
        stop = min(start + _CHUNK, first_seed + count)
        avatars = [sample_avatar(seed) for seed in range(start, stop)]
        images.append(compose_images(avatars, layers))
        masks.append(compose_masks(avatars, layers))
    return LabelledImages(torch.cat(images), torch.cat(masks), MASK_CLASSES)
