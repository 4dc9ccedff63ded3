"""The class-conditional generator's figures, under its name in the bundle."""

from __future__ import annotations

from pathlib import Path

from velatura.export.checkpoints.class_generator import load_class_generator
from velatura.training.biggan.agreement import (
    evaluate_class_generator,
    evaluate_renders,
    expression_judge,
)
from velatura.training.classifier.network import AttributeClassifier
from velatura.training.evaluation.figures import Measured

AGREEMENT = "class agreement"
_NAME, _WEIGHTS_FILE = "avatar-expressions", "avatar-biggan.safetensors"


def evaluate_classes(
    weights: Path, judge: AttributeClassifier, count: int
) -> dict[str, list[Measured]]:
    """Agreement on `count` samples a class, and on renders; empty where there is no network."""
    file = weights / _WEIGHTS_FILE
    if not file.exists():
        return {}
    read = expression_judge(judge, judge.config.resolution)
    figures = evaluate_class_generator(load_class_generator(file), read, count)
    return {_NAME: [*figures, evaluate_renders(read, count)]}
