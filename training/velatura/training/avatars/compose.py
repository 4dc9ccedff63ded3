"""Draws avatars: labels from a seed, image and mask from labels.

Seeds from 1,000,000 on are held out: they never enter training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from velatura.training.avatars.layers import LayerSet
from velatura.training.avatars.parts import (
    LABEL_DIM,
    MASK_CLASSES,
    OPTIONS,
    WEIGHTS,
    label_slices,
)

HELD_OUT_SEED = 1_000_000

# Least alpha at which a pixel counts as the part's, 0..255.
_LEAST_ALPHA = {"nose": 20, "eyes": 60, "brows": 60, "glasses": 60}


@dataclass(frozen=True)
class Avatar:
    """Index of each attribute's option, and the background's RGB above and below, 0..255."""

    choices: dict[str, int]
    background: tuple[tuple[int, int, int], tuple[int, int, int]]

    def named(self) -> dict[str, str]:
        """Attribute → option, in words."""
        return {a: list(OPTIONS[a])[i] for a, i in self.choices.items()}

    def with_choices(self, **options: str) -> Avatar:
        """The same avatar with other options, such as ``with_choices(mouth="smile")``."""
        changed = {a: list(OPTIONS[a]).index(name) for a, name in options.items()}
        return Avatar(self.choices | changed, self.background)


def sample_avatar(seed: int) -> Avatar:
    """The avatar of this seed; the same on every machine (numpy's PCG64)."""
    rng = np.random.default_rng(seed)
    choices = {
        attribute: int(rng.choice(len(options), p=WEIGHTS.get(attribute)))
        for attribute, options in OPTIONS.items()
    }
    above = rng.integers(40, 256, size=3)
    # Below, the same hue a little lighter or darker, now and then another colour altogether.
    below = above * rng.uniform(0.6, 1.25) if rng.random() < 0.8 else rng.integers(40, 256, size=3)
    background = [tuple(int(v) for v in np.clip(c, 0, 255)) for c in (above, below)]
    return Avatar(choices, (background[0], background[1]))  # type: ignore[arg-type]


def label_vector(avatar: Avatar) -> npt.NDArray[np.float32]:
    """Float32 [LABEL_DIM]: one-hot codes, then the background's six samples in [-1, 1]."""
    vector = np.zeros(LABEL_DIM, np.float32)
    slices = label_slices()
    for attribute, index in avatar.choices.items():
        vector[slices[attribute].start + index] = 1
    colors = np.asarray(avatar.background, np.float32).reshape(-1)
    vector[slices["background"]] = colors / 127.5 - 1
    return vector


def compose_images(avatars: Sequence[Avatar], layers: LayerSet) -> Tensor:
    """RGB uint8 [N, 3, R, R]."""
    size = layers.resolution
    ramp = torch.linspace(0, 1, size).view(1, 1, size, 1)  # [1, 1, R, 1]
    colors = torch.tensor([a.background for a in avatars], dtype=torch.float32)  # [N, 2, 3]
    above, below = colors[:, 0, :, None, None], colors[:, 1, :, None, None]
    canvas = (above + (below - above) * ramp).expand(-1, -1, -1, size)  # [N, 3, R, R]
    for _, layer in _stack(avatars, layers):
        rgba = layer.float()  # [N, 4, R, R], premultiplied
        canvas = rgba[:, :3] + canvas * (1 - rgba[:, 3:] / 255)
    return canvas.round_().clamp_(0, 255).to(torch.uint8)


def compose_masks(avatars: Sequence[Avatar], layers: LayerSet) -> Tensor:
    """Class indices uint8 [N, R, R]: the frontmost layer that covers at least half of the pixel.

    Lenses, noses, eyes and brows are drawn see-through, so less cover is enough for them: a person
    who edits glasses means the lenses too.
    """
    size = layers.resolution
    mask = torch.zeros(len(avatars), size, size, dtype=torch.uint8)
    for name, layer in _stack(avatars, layers):
        mask[layer[:, 3] >= _LEAST_ALPHA.get(name, 128)] = MASK_CLASSES.index(name)
    return mask


def _stack(avatars: Sequence[Avatar], layers: LayerSet) -> Iterator[tuple[str, Tensor]]:
    """Mask class and layers uint8 [N, 4, R, R], from the back to the front."""

    def pick(attribute: str) -> Tensor:
        return torch.tensor([a.choices[attribute] for a in avatars])

    hair_color = pick("hair_color")
    yield "skin", layers.body[pick("skin")]
    yield "clothing", layers.clothing[pick("clothing"), pick("clothing_color")]
    yield "mouth", layers.mouth[pick("mouth")]
    yield "nose", layers.nose.expand(len(avatars), -1, -1, -1)
    yield "eyes", layers.eyes[pick("eyes")]
    yield "brows", layers.brows[pick("brows")]
    yield "facial_hair", layers.facial_hair[pick("facial_hair"), hair_color]
    yield "hair", layers.hair[pick("hair"), hair_color]
    yield "glasses", layers.accessory[pick("accessory")]
