"""The training loop of the class-conditional GAN.

Where the data brings pairs of latents and images (avatars do), the generator is first taught them,
then plays against the discriminator while the pairs hold it with a falling weight. Without pairs
it is the GAN from the first step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.checkpoints.native import save_weights
from velatura.export.networks.biggan import ClassGenerator, ClassGeneratorConfig
from velatura.training.biggan.average import move_average, standing_statistics
from velatura.training.biggan.data import Draw, LabelledSource
from velatura.training.biggan.discriminator import Discriminator, DiscriminatorConfig
from velatura.training.biggan.pair_loss import PairLoss
from velatura.training.gan.losses import discriminator_loss, generator_loss
from velatura.training.runs.checkpoint import (
    checkpoint_path,
    flatten_module,
    flatten_optimizer,
    latest_checkpoint,
    load_checkpoint,
    restore_module,
    restore_optimizer,
    save_checkpoint,
)
from velatura.training.runs.logbook import CsvLog, training_progress
from velatura.training.runs.sample_grid import save_grid

WEIGHTS_FILE = "class-generator.safetensors"
_COLUMNS = ("pairs", "hinge_d", "hinge_g", "class_real", "class_fake", "rate", "seconds")
_SAMPLES_PER_CLASS = 8
_BATCHES_TO_LOOK_AT = 8  # for the statistics while the run goes on
_GRADIENT_LIMIT = 1.0
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class ClassTraining:
    """Settings of one run; `minutes` 0 means no time budget."""

    steps: int = 10_000
    minutes: float = 0.0
    batch: int = 32
    learning_rate_g: float = 1e-4
    learning_rate_d: float = 4e-4
    discriminator_steps: int = 1
    class_weight: float = 0.5  # of the discriminator's class head, against the hinge loss
    # The start on pairs: its share of the run, its batch and learning rate, and how strongly the
    # pairs still count when the game begins and when it ends.
    paired_share: float = 0.5
    paired_batch: int = 16
    paired_learning_rate: float = 1.5e-3
    pair_weight: float = 20.0
    final_pair_weight: float = 5.0
    average_decay: float = 0.999
    standing_batches: int = 60  # of 32 images, for the statistics of the finished generator
    sample_psi: float = 0.7
    save_every: int = 500
    log_every: int = 20
    seed: int = 1
    bf16: bool = False  # forward and backward in bfloat16

    def progress(self, step: int, seconds: float) -> float:
        """0 at the start, 1 or more at the end, by whichever of steps and minutes is further on."""
        return max(step / self.steps, seconds / (self.minutes * 60 or math.inf))


class ClassRun:
    """Both networks, the average, their optimisers, and the run's place on disk."""

    def __init__(
        self,
        config: ClassGeneratorConfig,
        settings: ClassTraining,
        source: LabelledSource,
        out: Path,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.source, self.out = settings, source, out
        self.generator = _channels_last(ClassGenerator(config))
        self.average = _channels_last(ClassGenerator(config))
        self.average.load_state_dict(self.generator.state_dict())
        self.discriminator = _channels_last(Discriminator(discriminator_config(config)))
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), betas=(0.5, 0.99))
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), betas=(0.0, 0.99))
        self.pair_loss = PairLoss(config.resolution)
        self.rng = torch.Generator().manual_seed(settings.seed)
        self.step, self.seconds = 0, 0.0
        self._resume()

    def one_hot(self, labels: Tensor) -> Tensor:
        return F.one_hot(labels, len(self.source.classes)).float()  # [N, C]

    def draw(self, count: int) -> tuple[Draw, Tensor]:
        """A batch of images, and latents [N, z_dim] for as many samples of the same classes."""
        drawn = self.source.draw(count, self.rng)
        if drawn.z is not None:
            return drawn, drawn.z
        return drawn, torch.randn(count, self.generator.config.z_dim, generator=self.rng)

    def advance(self, progress: float) -> dict[str, float]:
        """One step, at `progress` of the run; returns what is logged."""
        share = self.settings.paired_share if self.source.paired else 0.0
        figures = dict.fromkeys(_COLUMNS, math.nan)
        if progress < share:
            # The discriminator gets to know its opponent before it is listened to.
            figures |= self._pair_step(progress / share, watch=progress > 0.88 * share)
        else:
            figures |= self._game_step((progress - share) / (1 - share))
        self.step += 1
        move_average(self.average, self.generator, self.step, self.settings.average_decay)
        return figures

    def _pair_step(self, stage: float, *, watch: bool) -> dict[str, float]:
        settings = self.settings
        drawn, z = self.draw(settings.paired_batch)
        classes = self.one_hot(drawn.labels)
        fakes = self._generate(z, classes)
        loss = self.pair_loss(fakes, drawn.images)
        figures = {"pairs": loss.item()}
        if watch:
            figures |= self._train_discriminator(drawn.images, fakes.detach(), drawn.labels, 1.0)
        warm_up = min(1.0, (self.step + 1) / 200)
        falling = 0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi * stage))
        rate = settings.paired_learning_rate * warm_up * falling
        _update(self.optimizer_g, loss, rate)
        return figures | {"rate": rate}

    def _game_step(self, stage: float) -> dict[str, float]:
        settings = self.settings
        falling = 0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi * stage))
        for _ in range(settings.discriminator_steps - 1):
            drawn, z = self.draw(settings.batch)
            with torch.no_grad():
                fakes = self._generate(z, self.one_hot(drawn.labels))
            self._train_discriminator(drawn.images, fakes, drawn.labels, falling)
        drawn, z = self.draw(settings.batch)
        classes = self.one_hot(drawn.labels)
        fakes = self._generate(z, classes)
        figures = self._train_discriminator(drawn.images, fakes.detach(), drawn.labels, falling)
        self.discriminator.requires_grad_(False)
        scores, logits = self._judge(fakes, classes)
        self.discriminator.requires_grad_(True)
        named = F.cross_entropy(logits, drawn.labels)
        hinge = generator_loss("hinge", scores)
        loss = hinge + settings.class_weight * named
        figures |= {"hinge_g": hinge.item(), "class_fake": named.item()}
        if drawn.z is not None:
            pairs = self.pair_loss(fakes, drawn.images)
            held = settings.pair_weight + stage * (
                settings.final_pair_weight - settings.pair_weight
            )
            loss = loss + held * pairs
            figures["pairs"] = pairs.item()
        rate = settings.learning_rate_g * falling
        _update(self.optimizer_g, loss, rate, limit=math.inf)
        return figures | {"rate": rate}

    def _train_discriminator(
        self, images: Tensor, fakes: Tensor, labels: Tensor, falling: float
    ) -> dict[str, float]:
        """One step of the discriminator on real and generated images of the same classes."""
        classes = self.one_hot(labels)
        both = torch.cat([images, fakes])  # [2N, 3, R, R]
        scores, logits = self._judge(both, classes.repeat(2, 1))
        real, fake = scores.chunk(2)
        named = F.cross_entropy(logits.chunk(2)[0], labels)
        hinge = discriminator_loss("hinge", real, fake)
        loss = hinge + self.settings.class_weight * named
        _update(self.optimizer_d, loss, self.settings.learning_rate_d * falling, limit=math.inf)
        return {"hinge_d": hinge.item(), "class_real": named.item()}

    def _generate(self, z: Tensor, classes: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
            image: Tensor = self.generator(z, classes)
        return image.float()

    def _judge(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
            scores, logits = self.discriminator(images, classes)
        return scores.float(), logits.float()

    def finished(self, batches: int) -> ClassGenerator:
        """The generator that is exported: averaged, baked, with standing statistics.

        Draws from a random generator of its own, so that saving does not change the run.
        """
        rng = torch.Generator().manual_seed(self.settings.seed)

        def latents() -> tuple[Tensor, Tensor]:
            drawn = self.source.draw(32, rng)
            z_dim = self.generator.config.z_dim
            z = drawn.z if drawn.z is not None else torch.randn(32, z_dim, generator=rng)
            return z, self.one_hot(drawn.labels)

        return standing_statistics(self.average, latents, batches)

    def save(self, *, final: bool = False) -> None:
        """Replace checkpoint and weights; add a sample grid, one row a class."""
        batches = self.settings.standing_batches if final else _BATCHES_TO_LOOK_AT
        tensors = {"rng": self.rng.get_state()}
        for name in ("generator", "average", "discriminator"):
            tensors |= flatten_module(name, getattr(self, name))
        tensors |= flatten_optimizer("optimizer_g", self.optimizer_g)
        tensors |= flatten_optimizer("optimizer_d", self.optimizer_d)
        older, path = latest_checkpoint(self.out), checkpoint_path(self.out, self.step)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "config": asdict(self.generator.config),
            "settings": asdict(self.settings),
        }
        save_checkpoint(path, tensors, state)
        if older is not None and older != path:
            older.unlink()
        finished = self.finished(batches)
        save_weights(self.out / WEIGHTS_FILE, finished, finished.config, half=True)
        samples = class_samples(finished, _SAMPLES_PER_CLASS, self.settings.sample_psi)
        grid = self.out / "samples" / f"step-{self.step:06d}.png"
        save_grid(grid, samples.flatten(0, 1), _SAMPLES_PER_CLASS)

    def _resume(self) -> None:
        checkpoint = latest_checkpoint(self.out)
        if checkpoint is None:
            return
        tensors, state = load_checkpoint(checkpoint)
        for name in ("generator", "average", "discriminator"):
            restore_module(name, getattr(self, name), tensors)
        restore_optimizer("optimizer_g", self.optimizer_g, tensors)
        restore_optimizer("optimizer_d", self.optimizer_d, tensors)
        self.rng.set_state(tensors["rng"])
        self.step, self.seconds = state["step"], state["seconds"]


def train_class_generator(
    config: ClassGeneratorConfig, settings: ClassTraining, source: LabelledSource, out: Path
) -> Path:
    """Train or resume in `out`; writes checkpoints, log.csv, samples/ and the weights.

    Returns the path of the weights. Raises ValueError when the classes are not the data's.
    """
    if source.classes != config.classes:
        raise ValueError(f"classes: the data has {source.classes}, the network {config.classes}")
    run = ClassRun(config, settings, source, out)
    log = CsvLog(out / "log.csv", _COLUMNS, run.step)
    started = time.monotonic() - run.seconds
    with training_progress() as bar:
        task = bar.add_task("biggan", total=settings.steps, completed=run.step, note="")
        for progress in _schedule(run):
            figures = run.advance(progress)
            run.seconds = time.monotonic() - started
            bar.update(task, completed=run.step, note=f"pairs {figures['pairs']:.3f}")
            if run.step % settings.log_every == 0:
                log.write(run.step, figures | {"seconds": run.seconds})
            if run.step % settings.save_every == 0:
                run.save()
    run.save(final=True)
    return out / WEIGHTS_FILE


def _schedule(run: ClassRun) -> Iterator[float]:
    while (progress := run.settings.progress(run.step, run.seconds)) < 1:
        yield progress


def discriminator_config(config: ClassGeneratorConfig) -> DiscriminatorConfig:
    """As many blocks as the generator has; narrower, since it sees every image twice."""
    widths = {32: 32, 16: 64, 8: 128, 4: 192}
    sizes = [size for size in sorted(config.channels) if size < config.resolution]
    channels = {size: widths.get(size, 32) for size in sizes}
    return DiscriminatorConfig(
        len(config.classes), channels, min(config.attention_resolution, max(sizes))
    )


@torch.inference_mode()
def class_samples(generator: ClassGenerator, count: int, psi: float, seed: int = 7) -> Tensor:
    """The same `count` latents under every class: [C, count, 3, R, R] in [-1, 1].

    Truncation scales z by `psi`, as the service does.
    """
    config = generator.config
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, config.z_dim, generator=rng) * psi
    rows = torch.eye(len(config.classes))
    return torch.stack([generator(z, row.expand(count, -1)) for row in rows])


def _update(
    optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, limit: float = _GRADIENT_LIMIT
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if math.isfinite(limit):
        learned = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(learned, limit)
    optimizer.step()


def _channels_last(network: Network) -> Network:
    return network.to(memory_format=torch.channels_last)
