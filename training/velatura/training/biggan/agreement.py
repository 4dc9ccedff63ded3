"""Does an independent classifier see the class that a class-conditional generator was asked for?

The same is measured on renders of the same view: no generator can be read better than those.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.biggan import ClassGenerator
from velatura.training.avatars.compose import HELD_OUT_SEED
from velatura.training.avatars.parts import OPTIONS, label_slices
from velatura.training.biggan.expressions import CLASSES, Z_DIM, ExpressionRenders
from velatura.training.evaluation.figures import Measured

Judge = Callable[[Tensor], Tensor]
"""Images [N, 3, R, R] in [-1, 1] → index of the class that each shows, int64 [N]; -1 for none."""

_BATCH = 64
_PSI = 0.7


def evaluate_class_generator(
    generator: ClassGenerator, judge: Judge, count: int, psi: float = _PSI
) -> list[Measured]:
    """Share of samples whose class the judge sees, over all and for each class.

    `count` samples a class; z is multiplied by `psi`, as the service does.
    """
    config = generator.config
    rng = torch.Generator().manual_seed(HELD_OUT_SEED)
    z = torch.randn(count, config.z_dim, generator=rng) * psi

    def sampled(part: Tensor, index: int) -> Tensor:
        row = F.one_hot(torch.tensor(index), len(config.classes)).float()
        images: Tensor = generator(part, row.expand(len(part), -1))
        return images

    shares = _agreement(sampled, judge, z, len(config.classes))
    on = f"{count} samples a class at psi {psi:g}, attribute classifier"
    mean = Measured("class agreement", sum(shares) / len(shares), "", on)
    named = zip(config.classes, shares, strict=True)
    return [mean, *(Measured(f"class agreement: {name}", share, "", on) for name, share in named)]


def evaluate_renders(judge: Judge, count: int, psi: float = _PSI) -> Measured:
    """The judge's own share on `count` renders a class, of latents that no training draws."""
    renders = ExpressionRenders()
    rng = torch.Generator().manual_seed(HELD_OUT_SEED + 1)
    z = torch.randn(count, Z_DIM, generator=rng) * psi
    shares = _agreement(
        lambda part, index: renders.images(part, torch.full((len(part),), index)),
        judge,
        z,
        len(CLASSES),
    )
    on = f"{count} renders a class in the same view, attribute classifier"
    return Measured("class agreement of renders", sum(shares) / len(shares), "", on)


def expression_judge(classifier: nn.Module, resolution: int = 128) -> Judge:
    """Reads the expression off an attribute classifier, which sees the image enlarged.

    All of its mouths compete, those that are no class too.
    """
    mouth = label_slices()["mouth"]
    classes = [CLASSES.index(name) if name in CLASSES else -1 for name in OPTIONS["mouth"]]
    class_of = torch.tensor(classes)

    def judge(images: Tensor) -> Tensor:
        size = (resolution, resolution)
        large = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return class_of[classifier(large)[:, mouth].argmax(dim=1)]

    return judge


@torch.inference_mode()
def _agreement(
    images_of: Callable[[Tensor, int], Tensor], judge: Judge, z: Tensor, classes: int
) -> list[float]:
    """Share of agreement of each class, on the images of the same latents."""
    shares = []
    for index in range(classes):
        seen = torch.cat([judge(images_of(part, index)) for part in torch.split(z, _BATCH)])  # [N]
        shares.append(float((seen == index).float().mean()))
    return shares
