"""Labels → w: how a generator is first taught, before any image is encoded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LabelMapping(nn.Module):
    """Label vectors [N, L] → w [N, w_dim].

    The linear skip carries the labels through, so that moving one label moves w along one direction;
    the two hidden layers add what depends on several labels together.
    """

    def __init__(self, label_dim: int, w_dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.skip = nn.Linear(label_dim, w_dim)
        self.fc0 = nn.Linear(label_dim, hidden)
        self.fc1 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, w_dim)
        nn.init.normal_(self.skip.weight, std=1.0)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, labels: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.fc1(F.leaky_relu(self.fc0(labels), 0.2)), 0.2)
        w: Tensor = self.skip(labels) + self.out(hidden)
        return w


class ImageLoss(nn.Module):
    """L1 of the samples plus L1 of their differences to the right and below, weighted by place.

    The gradient term is what keeps outlines sharp; the window makes the face's few pixels count.
    Images are [N, 3, R, R] in [-1, 1].
    """

    weight: Tensor

    def __init__(self, resolution: int, face_weight: float = 3.0) -> None:
        super().__init__()
        weight = torch.ones(1, 1, resolution, resolution)
        top, bottom = round(resolution * 0.27), round(resolution * 0.70)
        left, right = round(resolution * 0.26), round(resolution * 0.74)
        weight[:, :, top:bottom, left:right] = face_weight
        self.register_buffer("weight", weight / weight.mean())

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        error = image - target
        across = (error[:, :, :, 1:] - error[:, :, :, :-1]).abs() * self.weight[:, :, :, 1:]
        down = (error[:, :, 1:] - error[:, :, :-1]).abs() * self.weight[:, :, 1:]
        return (error.abs() * self.weight).mean() + across.mean() + down.mean()


def psnr_db(image: Tensor, target: Tensor) -> float:
    """Mean over the batch of the peak signal-to-noise ratio in dB; images in [-1, 1]."""
    error = (image.clamp(-1, 1) - target).square().mean(dim=(1, 2, 3))  # [N]
    return float((10 * torch.log10(4 / error.clamp_min(1e-10))).mean())
