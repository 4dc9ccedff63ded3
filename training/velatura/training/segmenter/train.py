"""The segmenter's training loop: cross entropy with Dice, then with Lovász; averaged, resumable.

Dice brings the small classes up from nothing; the Lovász extension of the IoU (Berman et al. 2018,
arXiv:1705.08790) then moves their edges to where the IoU is greatest, which Dice leaves too wide.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from velatura.export.checkpoints.native import load_segmenter, save_weights
from velatura.export.networks.segmenter import SegmenterConfig, build_segmenter
from velatura.training.runs.loop import AveragedRun, Schedule, train
from velatura.training.runs.sample_grid import save_grid
from velatura.training.segmenter.augmentation import augment
from velatura.training.segmenter.labelled_images import LabelledImages
from velatura.training.segmenter.metrics import evaluate

# Per class, so that a brow two pixels wide counts as much as the background.
_DICE = smp.losses.DiceLoss(mode="multiclass", from_logits=True)
_LOVASZ = smp.losses.LovaszLoss(mode="multiclass")


@dataclass(frozen=True)
class SegmenterTraining:
    """Settings of one run."""

    batch: int = 16
    learning_rate: float = 2e-3
    # Share of the images that are changed at all; the rest is learned as it will be served.
    augmented: float = 0.45
    # How far into the run (0 to 1) Dice gives way to Lovász.
    lovasz_from: float = 0.5
    seed: int = 1
    bf16: bool = False  # forward and backward in bfloat16


def train_segmenter(
    config: SegmenterConfig,
    settings: SegmenterTraining,
    schedule: Schedule,
    data: LabelledImages,
    held_out: LabelledImages,
    out: Path,
    start_from: Path | None = None,
) -> dict[str, float]:
    """Train or resume in `out`; writes checkpoints, log.csv, samples and segmenter.safetensors.

    `start_from` are weights to go on from, of the same encoder and classes. Returns the figures of
    `evaluate` on `held_out`. Raises ValueError when the data's classes are not the network's.
    """
    if data.classes != config.classes:
        raise ValueError(f"classes: the data has {data.classes}, the network {config.classes}")
    torch.manual_seed(settings.seed)
    network = _network(config, start_from)
    run = AveragedRun(out, network, [(list(network.parameters()), settings.learning_rate)])
    rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + run.step)
    figures: dict[str, float] = {}

    def next_loss() -> Tensor:
        indices = torch.randint(len(data), (settings.batch,), generator=rng)
        image, labels = _augmented(*data.take(indices), settings.augmented, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            logits = network(image.contiguous(memory_format=torch.channels_last))
        logits = logits.float()  # [N, C, H, W]
        if schedule.progress(run.step, run.seconds) < settings.lovasz_from:
            return _with_cross_entropy(logits, labels, _DICE(logits, labels))
        # Lovász sorts all pixels once a class: every second row and column is enough of them.
        top, left = torch.randint(2, (2,), generator=rng).tolist()
        thinned = (..., slice(top, None, 2), slice(left, None, 2))
        return _with_cross_entropy(logits, labels, _LOVASZ(logits[thinned], labels[thinned]))

    def measure() -> float:
        figures.update(evaluate(run.average, held_out))
        save_weights(out / "segmenter.safetensors", run.average, config)
        _save_samples(out / "samples" / f"step-{run.step:06d}.png", run.average, held_out)
        Console().print(f"step {run.step}: mIoU {figures['mIoU']:.4f}")
        return figures["mIoU"]

    train(run, schedule, next_loss, measure, config.architecture)
    (out / "figures.json").write_text(json.dumps(figures, indent=2))
    return figures


def _with_cross_entropy(logits: Tensor, labels: Tensor, by_class: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels) + by_class


def _network(config: SegmenterConfig, start_from: Path | None) -> nn.Module:
    network = build_segmenter(config)
    if start_from is not None:
        earlier, its_config = load_segmenter(start_from)
        if (its_config.encoder, its_config.classes) != (config.encoder, config.classes):
            raise ValueError(f"{start_from}: weights of {its_config}, but {config} is asked for")
        _take_over(network, earlier)
    network.to(memory_format=torch.channels_last)
    return network.train()


def _take_over(network: nn.Module, earlier: nn.Module) -> None:
    """Load the weights whose names and shapes are the same in both; the others stay random."""
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    fitting = {n: v for n, v in earlier.state_dict().items() if shapes.get(n) == v.shape}
    network.load_state_dict(fitting, strict=False)


def _augmented(
    image: Tensor, labels: Tensor, share: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`augment` on about `share` of the batch, which comes out with those images first."""
    count = int((torch.rand(len(image), generator=rng) < share).sum())
    if count == 0:
        return image, labels
    changed, its_labels = augment(image[:count], labels[:count], rng)
    return torch.cat([changed, image[count:]]), torch.cat([its_labels, labels[count:]])


@torch.inference_mode()
def _save_samples(path: Path, network: nn.Module, data: LabelledImages) -> None:
    """Rows of image, predicted and true label map."""
    count = min(8, len(data))
    image, labels = data.take(torch.arange(count))
    predicted = network.eval()(image).argmax(dim=1)
    save_grid(path, torch.cat([image, paint(predicted), paint(labels)]), columns=count)


def paint(labels: Tensor) -> Tensor:
    """Label maps [N, H, W] as colours [N, 3, H, W] in [-1, 1], well apart for up to 27 classes."""
    levels = torch.tensor([-1.0, 1.0, 0.0])
    index = torch.arange(27)
    palette = torch.stack([levels[index % 3], levels[index // 3 % 3], levels[index // 9]], dim=1)
    return palette[labels % 27].permute(0, 3, 1, 2)
