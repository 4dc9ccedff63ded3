"""Trains the attribute classifier on renders and writes it with its held-out accuracies."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.checkpoints.native import save_weights
from velatura.training.avatars.compose import HELD_OUT_SEED
from velatura.training.avatars.dataset import avatar_batch, avatar_batches
from velatura.training.avatars.layers import render_layers
from velatura.training.avatars.parts import OPTIONS, label_slices
from velatura.training.classifier.augmentation import vary
from velatura.training.classifier.network import AttributeClassifier, ClassifierConfig
from velatura.training.classifier.reading import read_options, scores_of, shown
from velatura.training.runs.loop import AveragedRun, Schedule, train

WEIGHTS_FILE = "classifier.safetensors"
_SMOOTHING = 0.05  # of the labels: augmentation can make two options look alike


@dataclass(frozen=True)
class ClassifierSettings:
    """Settings of one run."""

    batch: int = 32
    learning_rate: float = 2e-3
    held_out: int = 500
    seed: int = 4
    bf16: bool = False  # forward and backward in bfloat16
    compile: bool = False
    config: ClassifierConfig = field(default_factory=ClassifierConfig)


def classifier_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy averaged over the attributes that show, plus the background's L1; [N, L]."""
    slices = label_slices()
    visible = shown(read_options(labels))
    background = slices["background"]
    loss = (scores[:, background] - labels[:, background]).abs().mean()
    for attribute in OPTIONS:
        place = slices[attribute]
        truth = labels[:, place].argmax(dim=1)
        errors = F.cross_entropy(
            scores[:, place], truth, reduction="none", label_smoothing=_SMOOTHING
        )  # [N]
        loss = loss + (errors * visible[attribute]).mean() / len(OPTIONS)
    return loss


def accuracies(judge: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of right options of each attribute where it shows; `background` is the mean error."""
    scores = scores_of(judge, images)
    read, truth = read_options(scores), read_options(labels)
    visible = shown(truth)
    found = {a: float((read[a] == truth[a])[visible[a]].float().mean()) for a in OPTIONS}
    place = label_slices()["background"]
    found["background"] = float((scores[:, place] - labels[:, place]).abs().mean())
    return found


def train_classifier(
    settings: ClassifierSettings, schedule: Schedule, out: Path
) -> dict[str, float]:
    """Train, or go on, in `out`; returns the held-out accuracies.

    Writes checkpoints, log.csv, classifier.safetensors (float16) with its .json, and figures.json.
    """
    torch.manual_seed(settings.seed)
    network = AttributeClassifier(settings.config)
    network.to(memory_format=torch.channels_last)
    run = AveragedRun(out, network, [(list(network.parameters()), settings.learning_rate)])
    layers = render_layers(settings.config.resolution)
    batches = avatar_batches(layers, settings.batch, settings.seed * 10_000_000 + run.step)
    held_out = range(HELD_OUT_SEED, HELD_OUT_SEED + settings.held_out)
    images, labels = avatar_batch(held_out, layers)
    rng = torch.Generator().manual_seed(settings.seed + run.step)
    forward = torch.compile(network) if settings.compile else network
    figures: dict[str, float] = {}

    def next_loss() -> Tensor:
        targets, codes = next(batches)
        seen = vary(targets, rng).contiguous(memory_format=torch.channels_last)
        network.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            scores = forward(seen)
        return classifier_loss(scores.float(), codes)

    def measure() -> float:
        judge = cast("AttributeClassifier", run.average).eval()
        figures.update(accuracies(judge, images, labels))
        save_weights(out / WEIGHTS_FILE, judge, settings.config, half=True)
        (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
        return sum(figures[a] for a in OPTIONS) / len(OPTIONS)

    train(run, schedule, next_loss, measure, "classifier")
    return figures
