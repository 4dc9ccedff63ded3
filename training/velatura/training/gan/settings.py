"""The settings of adversarial training: what a run is, and how long it lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from velatura.export.networks.stylegan2 import GeneratorConfig
from velatura.training.gan.ada.controller import AdaController
from velatura.training.gan.ada.pipeline import AugmentPipe
from velatura.training.gan.discriminator import DiscriminatorConfig
from velatura.training.gan.losses import OBJECTIVES, Objective

# Feature maps by resolution, of both networks.
_WIDTHS = {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 16}
_NOT_NEGATIVE = ("learning_rate", "path_length", "kimg_ema", "width", "r1_gamma")


@dataclass(frozen=True)
class GanSettings:
    """What defines a run; a resumed one must have the same. Raises ValueError naming the field."""

    resolution: int = 64
    batch: int = 16
    objective: Objective = "nonsaturating"
    width: float = 1.0  # factor on the networks' feature maps
    learning_rate: float = 2e-3
    # γ of R1; None: 0.0002 · R² / batch (Karras et al. 2020b), and 0 where there is a penalty.
    r1_gamma: float | None = None
    r1_interval: int = 16
    # Weight of WGAN's gradient penalty, at every step; None: 10 for Wasserstein, else 0.
    gradient_penalty: float | None = None
    spectral_norm: bool = False
    ada: bool = True
    ada_target: float = 0.6
    ada_kimg: float = 20.0  # thousand images in which p can go from 0 to 1
    ada_interval: int = 4
    augment: str = "bgc"
    augment_p: float = 0.0  # at the start; without `ada` throughout
    mixing: float = 0.9  # share of images made from two latents
    path_length: float = 0.0  # weight; 2 in the paper
    path_interval: int = 4
    kimg_ema: float = 5.0  # half-life of the average, in thousand images
    seed: int = 1
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"objective: {self.objective!r}; choose one of {', '.join(OBJECTIVES)}"
            )
        if self.batch < 2:
            raise ValueError(f"batch: {self.batch}; two images or more")
        for name in ("r1_interval", "path_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; steps, 1 or more")
        for name in _NOT_NEGATIVE:
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name}: {getattr(self, name)}; must not be negative")
        if not 0 <= self.mixing <= 1:
            raise ValueError(f"mixing: {self.mixing}; a share of images, 0 to 1")
        if self.objective == "wasserstein" and not (self.penalty_weight or self.spectral_norm):
            raise ValueError(
                "gradient_penalty: 0 with the Wasserstein objective; it needs the penalty (10 is "
                "usual) or spectral_norm"
            )
        AugmentPipe(self.augment)
        self.controller()
        self.discriminator_config(0)

    @property
    def penalty_weight(self) -> float:
        """Of the gradient penalty."""
        if self.gradient_penalty is not None:
            return self.gradient_penalty
        return 10.0 if self.objective == "wasserstein" and not self.spectral_norm else 0.0

    @property
    def gamma(self) -> float:
        """Of R1."""
        if self.r1_gamma is not None:
            return self.r1_gamma
        return 0.0 if self.penalty_weight else 0.0002 * self.resolution**2 / self.batch

    def controller(self) -> AdaController:
        """Of the augmentation's p; without `ada` it only measures."""
        kimg = self.ada_kimg if self.ada else math.inf
        return AdaController(self.ada_target, kimg, self.ada_interval, p=self.augment_p)

    def generator_config(self, classes: int) -> GeneratorConfig:
        return GeneratorConfig(self.resolution, channels=self._channels(), classes=classes)

    def discriminator_config(self, classes: int) -> DiscriminatorConfig:
        return DiscriminatorConfig(
            self.resolution,
            self._channels(),
            classes=classes,
            spectral_norm=self.spectral_norm,
        )

    def _channels(self) -> dict[int, int]:
        return {
            size: max(4, round(width * self.width))
            for size, width in _WIDTHS.items()
            if size <= self.resolution
        }


@dataclass(frozen=True)
class RunLength:
    """When a run ends, logs and saves; `minutes` over all sittings end it early unless it is 0."""

    steps: int
    minutes: float = 0.0
    save_every: int = 200
    log_every: int = 10

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name == "minutes" else 1
            if getattr(self, field.name) < least:
                raise ValueError(f"{field.name}: {getattr(self, field.name)}; {least} or more")

    def over(self, step: int, seconds: float) -> bool:
        return step >= self.steps or (self.minutes > 0 and seconds >= 60 * self.minutes)
