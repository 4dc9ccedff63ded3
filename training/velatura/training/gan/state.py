"""Everything that changes in an adversarial run, and its place on disk.

A run's folder holds one checkpoint (the newest), log.csv, samples/ and generator.safetensors with
its .json: the averaged generator, ready to be exported. classes.txt is there if it has classes.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from velatura.export.checkpoints.native import load_generator, save_weights
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.training.gan.discriminator import Discriminator
from velatura.training.gan.settings import GanSettings
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

_EMA_RAMP_UP = 0.05  # the half-life is at most this share of the images seen so far


class GanState:
    """Networks, optimisers, augmentation and counters of a run in `out`, new or resumed.

    `start_from` is a generator's weights (native safetensors) for a new run. Raises ValueError
    when they do not fit the settings, or a run in `out` was started with other ones.
    """

    def __init__(
        self, settings: GanSettings, classes: int, out: Path, start_from: Path | None = None
    ) -> None:
        self.settings, self.classes, self.out = settings, classes, out
        newest = latest_checkpoint(out)
        stored = load_checkpoint(newest) if newest else None
        torch.manual_seed(settings.seed)
        if stored:
            self._check_same(stored[1]["settings"], newest)
            self.generator = Generator(_generator_config(stored[1]["generator"]))
        else:
            self.generator = self._first_generator(start_from)
        self.discriminator = Discriminator(settings.discriminator_config(classes))
        for network in (self.generator, self.discriminator):
            network.train().to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.generator_optimizer = _adam(
            self.generator, settings, settings.path_interval if settings.path_length else 0
        )
        self.discriminator_optimizer = _adam(
            self.discriminator, settings, settings.r1_interval if settings.gamma else 0
        )
        self.ada = settings.controller()
        self.path_mean = torch.zeros([])
        self.step = 0
        self.seconds = 0.0
        # The regularisers' newest values: they are not taken at every step.
        self.figures: dict[str, float] = {"r1": 0.0, "gradient_penalty": 0.0, "path_length": 0.0}
        if stored:
            self._restore(*stored)

    @property
    def images_seen(self) -> int:
        return self.step * self.settings.batch

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged generator towards the current one."""
        half_life = min(self.settings.kimg_ema * 1000, self.images_seen * _EMA_RAMP_UP)
        decay = 0.5 ** (self.settings.batch / max(half_life, 1e-8))
        for weights in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            weights[0].lerp_(weights[1], 1 - decay)
        for buffers in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            buffers[0].copy_(buffers[1])

    def save(self) -> None:
        """Replace the run's checkpoint and its exportable generator."""
        tensors = flatten_module("average", self.average) | {"path_mean": self.path_mean}
        for name, network, optimizer in self._trained():
            tensors |= flatten_module(name, network)
            tensors |= flatten_optimizer(f"{name}_optimizer", optimizer)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "settings": self._identity(),
            "generator": asdict(self.generator.config),
            "ada": self.ada.state(),
            "figures": self.figures,
        }
        older, path = latest_checkpoint(self.out), checkpoint_path(self.out, self.step)
        save_checkpoint(path, tensors, state)
        save_weights(self.out / "generator.safetensors", self.average, self.generator.config)
        if older is not None and older != path:
            older.unlink()

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        restore_module("average", self.average, tensors)
        for name, network, optimizer in self._trained():
            restore_module(name, network, tensors)
            restore_optimizer(f"{name}_optimizer", optimizer, tensors)
        self.path_mean = tensors["path_mean"]
        self.ada.restore(state["ada"])
        self.figures = state["figures"]
        self.step, self.seconds = state["step"], state["seconds"]

    def _trained(self) -> list[tuple[str, nn.Module, torch.optim.Optimizer]]:
        return [
            ("generator", self.generator, self.generator_optimizer),
            ("discriminator", self.discriminator, self.discriminator_optimizer),
        ]

    def _identity(self) -> dict[str, Any]:
        return asdict(self.settings) | {"classes": self.classes}

    def _check_same(self, stored: dict[str, Any], checkpoint: Path | None) -> None:
        for name, value in self._identity().items():
            if stored.get(name, value) != value:
                raise ValueError(
                    f"{name}: {value}, but {checkpoint} was trained with {stored[name]}; give the "
                    "same to resume it, or another folder to start anew"
                )

    def _first_generator(self, start_from: Path | None) -> Generator:
        if start_from is None:
            return Generator(self.settings.generator_config(self.classes))
        generator = load_generator(start_from)
        found = (generator.config.resolution, generator.config.classes)
        if found != (self.settings.resolution, self.classes):
            raise ValueError(
                f"start_from: {start_from} is of {found[0]} px and {found[1]} classes; this run is "
                f"of {self.settings.resolution} px and {self.classes} classes"
            )
        return generator


def _adam(
    network: nn.Module, settings: GanSettings, regularised_every: int
) -> torch.optim.Optimizer:
    """Adam (0, 0.99). Lazy regularisation adds a step to every `regularised_every` (0: none), so
    rate and momenta shrink by k/(k + 1) to keep their effect (Karras et al. 2020, appendix B).
    """
    ratio = regularised_every / (regularised_every + 1) if regularised_every else 1.0
    betas = (0.0**ratio, 0.99**ratio)
    return torch.optim.Adam(network.parameters(), settings.learning_rate * ratio, betas, eps=1e-8)


def _generator_config(values: dict[str, Any]) -> GeneratorConfig:
    """From a checkpoint's JSON, which has only strings as keys."""
    channels = {int(size): width for size, width in values["channels"].items()}
    return GeneratorConfig(**(values | {"channels": channels}))
