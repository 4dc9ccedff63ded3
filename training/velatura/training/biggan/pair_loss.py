"""What the start on pairs of latents and images minimises."""

from __future__ import annotations

import torch

from velatura.training.generator.labels import ImageLoss


class PairLoss(ImageLoss):
    """`ImageLoss` weighted for the close view of `expressions`: face 2, the mouth's box 5."""

    def __init__(self, resolution: int) -> None:
        super().__init__(resolution, face_weight=1.0)
        weight = torch.ones(1, 1, resolution, resolution)
        for value, (top, bottom, left, right) in (
            (2.0, (0.30, 0.82, 0.22, 0.78)),
            (5.0, (0.58, 0.82, 0.32, 0.68)),
        ):
            rows = slice(round(resolution * top), round(resolution * bottom))
            weight[:, :, rows, round(resolution * left) : round(resolution * right)] = value
        self.weight = weight / weight.mean()
