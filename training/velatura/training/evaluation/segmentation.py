"""mIoU of the segmenters on held-out avatars."""

from __future__ import annotations

from torch import nn

from velatura.training.avatars.compose import HELD_OUT_SEED
from velatura.training.avatars.dataset import segmented_avatars
from velatura.training.avatars.layers import LayerSet
from velatura.training.evaluation.figures import Measured
from velatura.training.segmenter import metrics


def evaluate_segmenter(network: nn.Module, layers: LayerSet, count: int = 500) -> list[Measured]:
    """mIoU, pixel accuracy and the IoU of each class."""
    data = segmented_avatars(HELD_OUT_SEED, count, layers)
    place = f"{count} held-out avatars, {layers.resolution} px"
    return [Measured(n, v, "", place) for n, v in metrics.evaluate(network, data).items()]
