"""What a generator is first taught with: labels as latents, the image loss, and its figure."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.training.avatars.parts import label_slices

# Norm of one label's direction: w then varies by about a half in each dimension.
_BASIS_GAIN = 1.5


class LabelMapping(nn.Module):
    """Label vectors [N, L] → w [N, w_dim], w_dim ≥ L: every label owns one direction of W.

    A fixed rotation: each layer's affine map can still read any mixture of labels out of w, adding
    a label adds its direction exactly, and an encoder can be taught the latents before there is a
    generator. Telling mixed labels apart is left to the generator; see `blend_labels`.
    """

    basis: Tensor

    def __init__(self, label_dim: int, w_dim: int) -> None:
        super().__init__()
        if w_dim < label_dim:
            raise ValueError(f"w_dim: {w_dim} dimensions cannot hold {label_dim} labels")
        basis = torch.empty(w_dim, label_dim)
        nn.init.orthogonal_(basis, gain=_BASIS_GAIN, generator=torch.Generator().manual_seed(0))
        self.register_buffer("basis", basis)

    def forward(self, labels: Tensor) -> Tensor:
        return labels @ self.basis.t()

    def labels_of(self, w: Tensor) -> Tensor:
        """Labels [N, L] that w [N, w_dim] stands for; what lies outside the basis is dropped."""
        return w @ self.basis / _BASIS_GAIN**2


def blend_labels(labels: Tensor, rng: torch.Generator, share: float = 0.5) -> Tensor:
    """Soften one-hot codes of a share of the attributes, so that the right option still leads.

    An edit adds "smile" to a face that is still "neutral", and truncation pulls every label towards
    the average. A generator that has only seen one-hot codes answers with ghosts; one that has seen
    the leading option beside a strong rival (as after an edit), or weak beside many (as after
    truncation), shows the leading one, sharply.
    """
    blended = labels.clone()
    count = labels.shape[0]

    def uniform(low: float, high: float, columns: int = 1) -> Tensor:
        return torch.empty(count, columns).uniform_(low, high, generator=rng)

    for attribute, place in label_slices().items():
        if attribute == "background":
            continue
        code = labels[:, place]  # [N, K], one-hot
        options = code.shape[1]
        rival = F.one_hot(torch.randint(1, options, (count,), generator=rng), options)
        leader = code.argmax(dim=1, keepdim=True)  # [N, 1]
        rival = rival.gather(1, (torch.arange(options) - leader) % options)  # never the leader
        lead = uniform(1.2, 2.2)
        edited = uniform(-0.3, 0.1, options)
        edited = torch.where(rival > 0, lead - uniform(0.4, 1.0), edited)
        weak = uniform(0.5, 1.0)
        truncated = uniform(0.0, 1.0, options) * (weak - 0.4).clamp_max(0.4)
        as_edited = uniform(0, 1) < 0.6
        soft = torch.where(as_edited, edited, truncated)
        soft = torch.where(code > 0.5, torch.where(as_edited, lead, weak), soft)
        blended[:, place] = torch.where(uniform(0, 1) < share, soft, code)
    return blended


def latent_loss(w: Tensor, labels: Tensor, mapping: LabelMapping) -> Tensor:
    """Squared error in w, plus cross entropy of the options that w stands for."""
    loss = F.mse_loss(w, mapping(labels)) * 4
    logits = mapping.labels_of(w) * 6
    for attribute, place in label_slices().items():
        if attribute != "background":
            loss = loss + 0.05 * F.cross_entropy(logits[:, place], labels[:, place])
    return loss


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
