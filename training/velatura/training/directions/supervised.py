"""Supervised directions from paired renders.

InterFaceGAN (Shen et al. 2020, arXiv:2005.09635) fits a linear boundary to labelled samples and
then projects other attributes out. Where the same face can be drawn with and without the attribute,
the mean difference of the pair's latents is that direction, with every other attribute held fixed
by construction, in the encoder's own W+.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from velatura.training.avatars.compose import Avatar, compose_images, sample_avatar
from velatura.training.avatars.layers import LayerSet
from velatura.training.directions.catalog import NamedEdit

# At strength 1 the new option leads its rivals clearly: the pair's mean difference alone would
# bring it only level with the old one.
OPTION_GAIN = 2.0


@torch.inference_mode()
def paired_direction(
    edit: NamedEdit, encoder: nn.Module, layers: LayerSet, seeds: Sequence[int]
) -> Tensor:
    """W+ offsets [num_ws, w_dim] for strength 1; `seeds` are training avatars."""
    plain = [_without(edit, sample_avatar(seed)) for seed in seeds]
    edited = [apply_edit(edit, avatar) for avatar in plain]
    difference = _encode(edited, encoder, layers) - _encode(plain, encoder, layers)
    gain = OPTION_GAIN if edit.target else 1.0
    return gain * difference.mean(dim=0)


def apply_edit(edit: NamedEdit, avatar: Avatar) -> Avatar:
    """The avatar that the edit is meant to make."""
    changed = avatar.with_choices(**edit.target)
    return Avatar(changed.choices, edit.background or changed.background)


def _without(edit: NamedEdit, avatar: Avatar) -> Avatar:
    """The same avatar, moved to the next option wherever it already has the target's."""
    choices = dict(avatar.choices)
    for attribute, index in apply_edit(edit, avatar).choices.items():
        if attribute in edit.target and choices[attribute] == index:
            choices[attribute] = index - 1 if index else index + 1
    return Avatar(choices, avatar.background)


def _encode(avatars: list[Avatar], encoder: nn.Module, layers: LayerSet) -> Tensor:
    """W+ [N, num_ws, w_dim] in batches of 32."""
    found = []
    for start in range(0, len(avatars), 32):
        images = compose_images(avatars[start : start + 32], layers).float() / 127.5 - 1
        found.append(encoder(images))
    return torch.cat(found)
