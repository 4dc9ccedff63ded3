"""Fits the mapping network that samples: z → the w of a random avatar.

Every attribute owns one dimension of z, cut at the quantiles of its options; six more dimensions
choose the background. So a Gaussian z stands for one avatar of the data set's distribution, and
neighbouring z for neighbouring avatars. Gradient descent finds such steps slowly and leaves them
soft, which shows as two mouths in one face. The first layer is therefore set: a pair of units at
each cut, and random directions for the background. The second is then a linear least-squares
problem, and the third undoes the leaky ReLU behind it.

Truncation pulls towards the nearest of many centres, found by k-means: the average avatar has a
little of every option, and pulling towards it alone would take the variety out of colours first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.cluster import KMeans
from torch import Tensor

from velatura.export.networks.stylegan2 import FullyConnected, GeneratorConfig, MappingNetwork
from velatura.training.avatars.parts import LABEL_DIM, OPTIONS, WEIGHTS, label_slices
from velatura.training.generator.labels import LabelMapping

MAPPING_FILE = "mapping.safetensors"

# The background's colours are drawn from 40 to 255 of 255.
_DARKEST = 40 / 127.5 - 1
_BACKGROUND = slice(len(OPTIONS), len(OPTIONS) + 6)  # its dimensions of z
# How steep the steps are: from one option to the next within a hundredth of a deviation.
_SLOPE = 100.0
_RIDGE = 1e-6
# Truncation's; more follow the samples ever closer, and fewer make them alike.
_CENTRES = 1024
_CLUSTERING_STEPS = 50


@dataclass(frozen=True)
class MappingSettings:
    """Settings of one fit."""

    samples: int = 32_768
    seed: int = 3


def mapping_config(centres: int = _CENTRES) -> GeneratorConfig:
    """The avatar generator's configuration; its mapping is wide rather than deep."""
    return GeneratorConfig(mapping_layers=3, mapping_width=512, truncation_centres=centres)


def labels_of_z(z: Tensor) -> Tensor:
    """z [N, ≥ 16] standard normal → label vectors [N, L].

    Only the direction of z counts, as the network normalises it (Karras et al. 2019,
    arXiv:1812.04948).
    """
    z = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True))
    labels = torch.zeros(z.shape[0], label_slices()["background"].stop)
    for dimension, attribute in enumerate(OPTIONS):
        option = torch.bucketize(z[:, dimension].contiguous(), _cuts(attribute))  # [N]
        place = label_slices()[attribute]
        labels[:, place] = F.one_hot(option, len(OPTIONS[attribute])).float()
    uniform = torch.special.ndtr(z[:, _BACKGROUND])  # [N, 6]
    above = _DARKEST + (1 - _DARKEST) * uniform[:, :3]
    shade = uniform[:, 3:] * 0.6 + 0.6
    below = ((above + 1) * shade - 1).clamp(-1, 1)
    labels[:, label_slices()["background"]] = torch.cat([above, below], dim=1)
    return labels


def _cuts(attribute: str) -> Tensor:
    """Where on a normal axis one option ends and the next begins, [K - 1], rising."""
    count = len(OPTIONS[attribute])
    weights = torch.tensor(WEIGHTS.get(attribute, (1 / count,) * count), dtype=torch.float64)
    cuts: Tensor = torch.special.ndtri(weights.cumsum(0)[:-1])
    return cuts.float()


@torch.no_grad()
def fit_mapping(settings: MappingSettings, out: Path) -> float:
    """Fit and write `out`/mapping.safetensors, w_avg included.

    Returns the share of attributes whose right option leads.
    """
    rng = torch.Generator().manual_seed(settings.seed)
    config = mapping_config()
    network, labels = MappingNetwork(config), LabelMapping(LABEL_DIM, config.w_dim)
    z = torch.randn(settings.samples, config.z_dim, generator=rng)
    w = labels(labels_of_z(z))  # [M, w_dim]
    steps, backdrop = _first_layer(config.mapping_width, config.z_dim, rng)
    _set_layer(
        network, "fc0", torch.cat([steps[0], backdrop[0]]), torch.cat([steps[1], backdrop[1]])
    )
    _set_layer(network, "fc1", *_least_squares(_hidden(network, z), -w))
    # leaky(-2.5 leaky(-w)) = w, with slope 0.2 and gain √2.
    _set_layer(network, "fc2", -2.5 * torch.eye(config.w_dim), torch.zeros(config.w_dim))
    network.w_avg.copy_(w.mean(dim=0))
    network.w_centres.copy_(_centres(network(z, torch.ones(len(z))), network.centres, settings))
    out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), out / MAPPING_FILE)
    return _accuracy(network, labels, torch.randn(8192, config.z_dim, generator=rng))


def _first_layer(
    width: int, z_dim: int, rng: torch.Generator
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Weights and biases of the units at the cuts, then of those for the background.

    The difference of a pair of leaky ReLUs, one before a cut and one behind it, is a step.
    """
    weights, biases = [], []
    for dimension, attribute in enumerate(OPTIONS):
        for cut in _cuts(attribute).tolist():
            row = torch.zeros(z_dim)
            row[dimension] = _SLOPE
            weights += [row, row]
            biases += [0.5 - _SLOPE * cut, -0.5 - _SLOPE * cut]
    count = width - len(weights)
    directions = torch.zeros(count, z_dim)
    directions[:, _BACKGROUND] = torch.randn(count, 6, generator=rng)
    offsets = torch.randn(count, generator=rng) * 1.5
    return (torch.stack(weights), torch.tensor(biases)), (directions, offsets)


def _set_layer(network: MappingNetwork, name: str, weight: Tensor, bias: Tensor) -> None:
    """x @ weight.t() + bias in the layer's first rows and columns, zeros beside them."""
    layer = cast("FullyConnected", network.get_submodule(name))
    layer.weight.zero_()
    layer.bias.zero_()
    layer.weight[: weight.shape[0], : weight.shape[1]] = weight / layer.weight_gain
    layer.bias[: bias.shape[0]] = bias / layer.bias_gain


def _hidden(network: MappingNetwork, z: Tensor) -> Tensor:
    """The first layer's output [M, width]."""
    z = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
    layer = cast("FullyConnected", network.get_submodule("fc0"))
    return F.leaky_relu(layer(z), 0.2) * math.sqrt(2)


def _least_squares(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of targets [M, out] on inputs [M, in]: weight [out, in], bias [out].

    In float64: the pairs of units differ by little beside their own size.
    """
    x, y = inputs.double(), targets.double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    gram = x.t() @ x / len(x)
    gram.diagonal().add_(_RIDGE)
    weight = torch.linalg.solve(gram, x.t() @ y / len(x)).t()  # [out, in]
    return weight.float(), (y_mean - weight @ x_mean).float()


def _centres(w: Tensor, count: int, settings: MappingSettings) -> Tensor:
    """Cluster centres [count, w_dim] of w [M, w_dim]."""
    clusters = KMeans(count, n_init=1, max_iter=_CLUSTERING_STEPS, random_state=settings.seed).fit(
        w.numpy()
    )
    return torch.from_numpy(clusters.cluster_centers_)


def _accuracy(network: MappingNetwork, labels: LabelMapping, z: Tensor) -> float:
    found = labels.labels_of(network(z, torch.ones(len(z))))
    truth = labels_of_z(z)
    places = [p for a, p in label_slices().items() if a != "background"]
    hits = [found[:, p].argmax(1) == truth[:, p].argmax(1) for p in places]
    return float(torch.stack(hits).float().mean())
