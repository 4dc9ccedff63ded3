"""The feature extractors in which sets of pictures are compared, by torch-fidelity's interface.

Without a file of Inception's weights nothing is downloaded: the avatar classifier's features serve
instead. They know everything that avatars differ in and nothing else, so the figures compare
generators of this domain with each other, never with published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from velatura.training.avatars.parts import label_slices
from velatura.training.classifier.network import AttributeClassifier, load_classifier

DOMAIN = "avatar-classifier"
INCEPTION = "inception-v3-compat"
_FEATURES, _LOGITS = "features", "logits"
_SCORED = ("mouth", "hair")  # the attributes whose joint options the IS counts


@dataclass(frozen=True)
class Extractor:
    """Which registered extractor to use, with which weights, and what to say beside a figure."""

    name: str
    weights: Path
    note: str

    @property
    def classes(self) -> str:
        """What the inception score tells apart."""
        return "ImageNet classes" if self.name == INCEPTION else " × ".join(_SCORED)


def domain_extractor(judge_file: Path) -> Extractor:
    """The avatar classifier's pooled features."""
    if DOMAIN not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(DOMAIN, DomainFeatures)
    return Extractor(DOMAIN, judge_file, "domain features (avatar classifier)")


def inception_extractor(file: Path) -> Extractor:
    """torch-fidelity's Inception v3 from a file that the user has.

    Raises ValueError when the file is missing or holds anything but tensors: torch-fidelity itself
    would run what a pickle asks for.
    """
    if not file.is_file():
        raise ValueError(f"--inception: {file} is not there; give weights-inception-*.pth")
    try:
        torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"--inception: {file} is not a file of tensors alone: {error}") from error
    return Extractor(INCEPTION, file, "Inception v3 (torch-fidelity)")


class DomainFeatures(FeatureExtractorBase):  # type: ignore[misc]
    """uint8 [N, 3, H, W] → the classifier's features [N, 256], and logits for the IS.

    Other sizes are resized to the classifier's bilinearly. The logits are of `mouth` × `hair`
    jointly: their softmax is the product of both, over 144 classes.
    """

    def __init__(
        self,
        name: str,
        features_list: Sequence[str],
        feature_extractor_weights_path: str = "",
        **_: Any,
    ) -> None:
        super().__init__(name, list(features_list))
        self.judge: AttributeClassifier = load_classifier(Path(feature_extractor_weights_path))

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (_FEATURES, _LOGITS)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return _LOGITS if metric == "isc" else _FEATURES

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        image = pixels.float() / 127.5 - 1
        size = self.judge.config.resolution
        if image.shape[-2:] != (size, size):
            image = F.interpolate(image, (size, size), mode="bilinear", antialias=True)
        features = self.judge.features(image)  # [N, 256]
        found = {_FEATURES: features, _LOGITS: joint_logits(self.judge.head(features))}
        return tuple(found[name] for name in self.features_list)


def joint_logits(scores: Tensor) -> Tensor:
    """Scores [N, LABEL_DIM] → logits [N, 9 · 16] whose softmax is the product of the groups'."""
    mouth, hair = (scores[:, label_slices()[attribute]] for attribute in _SCORED)
    return (mouth[:, :, None] + hair[:, None, :]).flatten(1)
