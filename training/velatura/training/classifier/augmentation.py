"""What the judge must see through: other framings, and pictures softer than renders.

Generators blur a little, and some draw at 64 px or zoom into the face. All of it is made from
renders, so that no generator's habits are learned.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from velatura.training.segmenter.augmentation import soften_and_grain

# Centre of the face, and of every zoom: across and down in [-1, 1] of the picture.
FACE_CENTRE = (0.0, -0.03)
GREATEST_ZOOM = 1.5


def vary(image: Tensor, rng: torch.Generator) -> Tensor:
    """Images [N, 3, R, R] in [-1, 1], each reframed, softened and grained by chance."""
    framed = _reframe(image, rng)
    return soften_and_grain(_halve(framed, rng), rng)


def zoom(image: Tensor, factor: Tensor, shift: Tensor | None = None) -> Tensor:
    """Enlarge by `factor` [N] about the face's centre, moved by `shift` [N, 2] in [-1, 1] units.

    Factors below 1 repeat the edge.
    """
    centre = image.new_tensor(FACE_CENTRE)
    scale = 1 / factor  # [N]
    offset = centre * (1 - scale[:, None])  # keeps the centre where it is
    if shift is not None:
        offset = offset + shift
    theta = image.new_zeros(len(image), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale, scale, offset
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


def _reframe(image: Tensor, rng: torch.Generator) -> Tensor:
    """Two fifths as they are, a third shaken a little, a quarter zoomed by up to GREATEST_ZOOM.

    The zoomed ones move further, above all up and down: closer views frame the face as they like.
    """
    count = len(image)
    kind = torch.rand(count, generator=rng)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count).uniform_(low, high, generator=rng)

    shaken = torch.exp(uniform(math.log(0.95), math.log(1.05)))
    zoomed = uniform(1.0, GREATEST_ZOOM)
    factor = torch.where(kind < 0.35, shaken, torch.where(kind < 0.6, zoomed, torch.ones(count)))
    reach = torch.where(
        (kind >= 0.35)[:, None], torch.tensor([0.08, 0.2]), torch.tensor([0.05, 0.05])
    )
    shift = torch.empty(count, 2).uniform_(-1, 1, generator=rng) * reach
    return zoom(image, factor, shift * (kind < 0.6)[:, None])


def _halve(image: Tensor, rng: torch.Generator) -> Tensor:
    """A fifth of the images as a 64 px generator would draw them, enlarged again bilinearly."""
    halved = F.interpolate(F.avg_pool2d(image, 2), scale_factor=2.0, mode="bilinear")
    chosen = torch.rand(len(image), generator=rng) < 0.2
    return torch.where(chosen.view(-1, 1, 1, 1), halved, image)
