"""Teaches the mapping network to sample: z → the w of a random avatar.

Every option of every attribute owns one dimension of z, and the greatest one within an attribute
wins; six more dimensions choose the background. So a Gaussian z stands for one avatar of the data
set's distribution, neighbouring z for neighbouring avatars, and the network only has to learn that
rule. It hits corners softly; the generator shows the leading option (see `blend_labels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from velatura.export.networks.stylegan2 import GeneratorConfig, MappingNetwork
from velatura.training.avatars.parts import LABEL_DIM, OPTIONS, WEIGHTS, label_slices
from velatura.training.generator.labels import LabelMapping, latent_loss
from velatura.training.runs.logbook import training_progress
from velatura.training.runs.schedule import decayed_rate

MAPPING_FILE = "mapping.safetensors"

# The background's colours are drawn from 40 to 255 of 255.
_DARKEST = 40 / 127.5 - 1


@dataclass(frozen=True)
class MappingSettings:
    """Settings of one run."""

    steps: int = 6000
    batch: int = 512
    learning_rate: float = 1.0  # weights are stored a hundred times as large as they act
    seed: int = 3


def mapping_config() -> GeneratorConfig:
    """The avatar generator's configuration; its mapping is wide rather than deep."""
    return GeneratorConfig(mapping_layers=3, mapping_width=512)


def labels_of_z(z: Tensor) -> Tensor:
    """z [N, ≥ L] standard normal → label vectors [N, L]."""
    labels = torch.zeros(z.shape[0], label_slices()["background"].stop)
    for attribute, place in label_slices().items():
        if attribute == "background":
            above = torch.special.ndtr(z[:, place.start : place.start + 3])  # [N, 3] uniform
            shade = torch.special.ndtr(z[:, place.start + 3 : place.stop]) * 0.6 + 0.6
            above = _DARKEST + (1 - _DARKEST) * above
            below = ((above + 1) * shade - 1).clamp(-1, 1)
            labels[:, place] = torch.cat([above, below], dim=1)
            continue
        # Gumbel noise plus log weights: the greatest is drawn with exactly those weights.
        uniform = torch.special.ndtr(z[:, place]).clamp(1e-6, 1 - 1e-6)  # [N, K]
        scores = _log_weights(attribute) - torch.log(-torch.log(uniform))
        labels[:, place] = F.one_hot(scores.argmax(dim=1), scores.shape[1]).float()
    return labels


def _log_weights(attribute: str) -> Tensor:
    """How often the data set draws each option, [K]."""
    count = len(OPTIONS[attribute])
    return torch.tensor(WEIGHTS.get(attribute, (1 / count,) * count)).log()


def train_mapping(settings: MappingSettings, out: Path) -> float:
    """Train and write `out`/mapping.safetensors, w_avg included.

    Returns the share of attributes whose right option leads.
    """
    torch.manual_seed(settings.seed)
    config = mapping_config()
    z_dim = config.z_dim
    network, labels = MappingNetwork(config), LabelMapping(LABEL_DIM, config.w_dim)
    learned = list(network.parameters())
    optimizer = torch.optim.Adam(learned, settings.learning_rate, betas=(0.9, 0.99))
    one = torch.ones(settings.batch)
    network.w_avg.zero_()
    with training_progress() as bar:
        task = bar.add_task("mapping", total=settings.steps, note="")
        for step in range(settings.steps):
            rate = decayed_rate(step / settings.steps, step, 0.01)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate
            z = torch.randn(settings.batch, z_dim)
            loss = latent_loss(network(z, one), labels_of_z(z), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            bar.update(task, completed=step + 1, note=f"loss {loss.item():.4f}")
    with torch.no_grad():
        z = torch.randn(8192, z_dim)
        truth = labels_of_z(z)
        network.w_avg.copy_(labels(truth).mean(dim=0))
        found = labels.labels_of(network(z, torch.ones(len(z))))
        places = [p for a, p in label_slices().items() if a != "background"]
        hits = [found[:, p].argmax(1) == truth[:, p].argmax(1) for p in places]
    out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), out / MAPPING_FILE)
    return float(torch.stack(hits).float().mean())
