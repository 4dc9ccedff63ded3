"""Intersection over union per class, from a confusion matrix over all pixels of a data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from velatura.training.segmenter.labelled_images import LabelledImages


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Pixel counts [classes, classes], rows true, columns predicted, int64."""
    pairs = labels.reshape(-1) * classes + predicted.reshape(-1)
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def iou_per_class(confusion: Tensor) -> Tensor:
    """IoU [classes]; NaN for a class neither present nor predicted."""
    hits = confusion.diagonal().double()
    union = confusion.sum(dim=0) + confusion.sum(dim=1) - confusion.diagonal()
    return hits / torch.where(union > 0, union, torch.nan)


@torch.inference_mode()
def evaluate(network: nn.Module, data: LabelledImages, batch: int = 16) -> dict[str, float]:
    """`mIoU`, `pixel_accuracy` and `IoU/CLASS` on all of `data`, no augmentation."""
    training = network.training
    network.eval()
    classes = len(data.classes)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for indices in torch.split(torch.arange(len(data)), batch):
        image, labels = data.take(indices)
        confusion += confusion_matrix(network(image).argmax(dim=1), labels, classes)
    network.train(training)
    iou = iou_per_class(confusion)
    return {
        "mIoU": float(iou.nanmean()),
        "pixel_accuracy": float(confusion.diagonal().sum() / confusion.sum()),
        **{f"IoU/{name}": float(value) for name, value in zip(data.classes, iou, strict=True)},
    }
