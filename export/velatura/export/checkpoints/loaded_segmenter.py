"""What each loader of a foreign segmenter returns, and the class names that several share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

Channels = tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)

# Pascal VOC in its own order; "__background__" of some lists is called as everywhere else here.
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class LoadedSegmenter:
    """A network in eval mode that takes [N, 3, H, W] as its training script gives it (RGB in [0, 1]
    less `mean`, over `std`) and returns logits [N, C, H, W]."""

    network: nn.Module
    kind: str
    """Architecture and backbone, for people."""
    channels: int
    """C; a single channel is the logit of the foreground."""
    stride: int
    """Heights and widths must be multiples of it."""
    papers: tuple[str, ...]
    names: tuple[str, ...] = ()
    """Of the classes, where the format or its data set fixes them."""
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
