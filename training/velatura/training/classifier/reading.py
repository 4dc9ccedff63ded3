"""From the classifier's scores, or label vectors, to one option for each attribute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from velatura.training.avatars.parts import OPTIONS, label_slices

Reading = dict[str, Tensor]
"""Attribute → index of its option for each image, int64 [N]."""


@torch.inference_mode()
def scores_of(judge: nn.Module, images: Tensor, batch: int = 64) -> Tensor:
    """[N, LABEL_DIM] of images [N, 3, R, R] in [-1, 1]."""
    return torch.cat([judge(part) for part in torch.split(images, batch)])


def read_options(scores: Tensor) -> Reading:
    """The leading option of each attribute in scores, or label vectors, [N, LABEL_DIM]."""
    slices = label_slices()
    return {attribute: scores[:, slices[attribute]].argmax(dim=1) for attribute in OPTIONS}


def shown(truth: Reading) -> Reading:
    """Whether anything in the picture tells each attribute, bool [N], by the true options.

    One case is hidden: a bald head without a beard has no hair whose colour could be seen. (Eyes
    behind dark glasses do shine through.)
    """
    bald = truth["hair"] == _index("hair", "bald")
    shaved = truth["facial_hair"] == _index("facial_hair", "none")
    everywhere = torch.ones_like(bald)
    return {a: ~(bald & shaved) if a == "hair_color" else everywhere for a in OPTIONS}


def _index(attribute: str, option: str) -> int:
    return list(OPTIONS[attribute]).index(option)
