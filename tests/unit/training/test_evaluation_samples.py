"""Sets of pictures compared through torch-fidelity, where the right answer is known."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from velatura.export.checkpoints.native import save_weights
from velatura.training.classifier.network import AttributeClassifier, ClassifierConfig
from velatura.training.evaluation.extractor import (
    Extractor,
    domain_extractor,
    inception_extractor,
)
from velatura.training.evaluation.samples import RENDERS, compare, sample_figures

COUNT = 600


class _MeanColor(FeatureExtractorBase):  # type: ignore[misc]
    """Features [N, 3]: the mean of each channel."""

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("mean",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        assert metric in {"isc", "fid", "kid", "prc"}
        return "mean"

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (pixels.float().mean(dim=(2, 3)),)


@pytest.fixture
def mean_color() -> Any:
    register_feature_extractor("mean-color", _MeanColor)
    yield Extractor("mean-color", Path("none"), "mean colours")
    del FEATURE_EXTRACTORS_REGISTRY["mean-color"]


def normal_colors(mean: float, deviation: float, seed: int) -> Tensor:
    """Flat pictures uint8 [COUNT, 3, 4, 4] whose colours are normal, each channel alone."""
    rng = np.random.default_rng(seed)
    colors = rng.normal(mean, deviation, (COUNT, 3)).round().clip(0, 255).astype(np.uint8)
    return torch.from_numpy(colors)[:, :, None, None].expand(-1, -1, 4, 4).contiguous()


def frechet(a: Tensor, b: Tensor) -> float:
    """Heusel et al. 2017 in float64, the square root by eigenvalues of the symmetric form."""
    x, y = (p[:, :, 0, 0].double().numpy() for p in (a, b))
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    between = np.sqrt(np.linalg.eigvalsh(root @ cov_y @ root)).sum()
    gap = x.mean(axis=0) - y.mean(axis=0)
    return float(gap @ gap + np.trace(cov_x) + np.trace(cov_y) - 2 * between)


def test_fid_is_the_frechet_distance(mean_color: Extractor) -> None:
    a, b = normal_colors(100, 10, 1), normal_colors(120, 20, 2)
    found = compare(a, b, mean_color).fid
    assert found == pytest.approx(frechet(a, b), rel=1e-4)
    assert found == pytest.approx(3 * (20**2 + 10**2), rel=0.1)  # closed form of the two normals


def test_equal_sets_are_alike_and_distant_ones_are_not(mean_color: Extractor) -> None:
    a = normal_colors(100, 10, 1)
    same, far = compare(a, a, mean_color), compare(a, normal_colors(220, 10, 2), mean_color)
    assert same.fid == pytest.approx(0, abs=1e-3)
    assert (same.precision, same.recall) == (1.0, 1.0)
    assert (far.precision, far.recall) == (0.0, 0.0)
    assert far.kid > 100 * abs(same.kid)


def test_a_part_of_the_variety_has_precision_without_recall(mean_color: Extractor) -> None:
    found = compare(normal_colors(100, 3, 3), normal_colors(100, 25, 2), mean_color)
    assert found.precision > 0.9
    assert found.recall < 0.3


def test_cached_references_give_the_same_figures(mean_color: Extractor, tmp_path: Path) -> None:
    a, b = normal_colors(100, 10, 1), normal_colors(120, 20, 2)
    first = compare(a, b, mean_color, str(tmp_path))
    assert list(tmp_path.rglob("*.pt"))
    assert compare(a, b, mean_color, str(tmp_path)) == first == compare(a, b, mean_color)


def test_figures_say_their_extractor_and_their_floor(mean_color: Extractor) -> None:
    a, b = normal_colors(100, 10, 1), normal_colors(120, 20, 2)
    likeness = {RENDERS: compare(a, b, mean_color), "psi_0.7": compare(b, a, mean_color)}
    figures = {f.name: f for f in sample_figures(likeness, COUNT, mean_color)}
    assert all("mean colours" in f.measured_on for f in figures.values())
    assert figures["FID/ratio_psi_0.7"].value == pytest.approx(1.0)


def test_domain_features_take_pictures_of_any_size(tmp_path: Path) -> None:
    config = ClassifierConfig(resolution=32, channels=(8, 8), blocks=(1, 1), features=16)
    file = tmp_path / "judge.safetensors"
    save_weights(file, AttributeClassifier(config), config)
    extractor = domain_extractor(file)
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randint(256, (24, 3, 64, 64), generator=rng).byte() for _ in range(2))
    found = compare(a, b, extractor)
    assert 0 <= found.fid < 1
    assert 1 <= found.inception_score <= 9 * 16
    assert domain_extractor(file) == extractor  # registering twice is no error


class _Bomb:
    def __reduce__(self) -> Any:
        return print, ("it ran",)


def test_inception_must_be_there_and_hold_tensors_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"--inception: .* is not there"):
        inception_extractor(tmp_path / "missing.pth")
    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ValueError, match="not a file of tensors alone"):
        inception_extractor(file)
    torch.save({"x": torch.zeros(1), "y": _Bomb()}, file)
    with pytest.raises(ValueError, match="not a file of tensors alone"):
        inception_extractor(file)
    assert "it ran" not in capsys.readouterr().out
    torch.save({"x": torch.zeros(1)}, file)
    assert inception_extractor(file).note == "Inception v3 (torch-fidelity)"
