"""The judge: what it sees through, what it reads, and what it was trained to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from velatura.export.errors import CheckpointError
from velatura.training.avatars.compose import label_vector, sample_avatar
from velatura.training.avatars.dataset import avatar_batch
from velatura.training.avatars.layers import render_layers
from velatura.training.avatars.parts import LABEL_DIM, OPTIONS, label_slices
from velatura.training.classifier.augmentation import vary, zoom
from velatura.training.classifier.network import (
    AttributeClassifier,
    ClassifierConfig,
    load_classifier,
)
from velatura.training.classifier.reading import read_options, shown
from velatura.training.classifier.train import (
    WEIGHTS_FILE,
    ClassifierSettings,
    accuracies,
    classifier_loss,
    train_classifier,
)
from velatura.training.evaluation.figures import held_out_seeds
from velatura.training.runs.loop import Schedule

SHIPPED = Path(__file__).parents[3] / "training" / "weights" / "avatar-classifier.safetensors"
SMALL = ClassifierConfig(resolution=32, channels=(16, 32), blocks=(1, 1), features=64)


def labels_of(count: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(label_vector(sample_avatar(s))) for s in range(count)])


def test_scores_and_features_have_the_labels_layout() -> None:
    judge = AttributeClassifier(SMALL).eval()
    image = torch.randn(3, 3, 32, 32)
    assert judge(image).shape == (3, LABEL_DIM)
    features = judge.features(image)
    assert features.shape == (3, 64)
    assert features.min() >= 0
    torch.testing.assert_close(judge.head(features), judge(image))


def test_a_configuration_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="3 channels but 2 block counts"):
        ClassifierConfig(channels=(8, 8, 8), blocks=(1, 1))


def test_zoom_enlarges_about_the_face() -> None:
    image = torch.full((2, 3, 64, 64), -1.0)
    image[:, :, 28:34, 29:35] = 1  # around the face's centre
    torch.testing.assert_close(zoom(image, torch.ones(2)), image, atol=1e-5, rtol=0)
    enlarged = (zoom(image, torch.tensor([1.5, 2.0])) + 1).sum(dim=(1, 2, 3))
    plain = (image + 1).sum(dim=(1, 2, 3))
    assert (enlarged / plain).tolist() == pytest.approx([1.5**2, 2.0**2], rel=0.1)
    moved = zoom(image, torch.ones(2), torch.tensor([[0.0, 0.5], [0.0, 0.5]]))
    torch.testing.assert_close(moved[:, :, 12:18], image[:, :, 28:34], atol=1e-5, rtol=0)


def test_variations_follow_their_seed_and_stay_in_range() -> None:
    image = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    first = vary(image, torch.Generator().manual_seed(2))
    assert torch.equal(first, vary(image, torch.Generator().manual_seed(2)))
    assert first.abs().max() <= 1
    unchanged = (first == image).all(dim=1).all(dim=1).all(dim=1)
    assert 0 < unchanged.sum() < 12  # some are left as they are, most are not


def test_options_are_read_back_from_labels() -> None:
    avatars = [sample_avatar(seed) for seed in range(20)]
    read = read_options(labels_of(20))
    for i, avatar in enumerate(avatars):
        assert {a: int(read[a][i]) for a in OPTIONS} == avatar.choices


def test_only_a_bald_shaved_heads_hair_colour_is_hidden() -> None:
    bald = sample_avatar(1).with_choices(hair="bald", facial_hair="none")
    people = [bald, bald.with_choices(facial_hair="beard"), bald.with_choices(hair="bob")]
    seen = shown(read_options(torch.stack([torch.from_numpy(label_vector(a)) for a in people])))
    assert seen["hair_color"].tolist() == [False, True, True]
    assert all(seen[a].all() for a in OPTIONS if a != "hair_color")


def test_the_loss_wants_the_right_option_and_ignores_what_is_hidden() -> None:
    bald = sample_avatar(1).with_choices(hair="bald", facial_hair="none")
    labels = torch.from_numpy(label_vector(bald))[None]
    right = classifier_loss(labels * 8, labels)
    wrong = classifier_loss(-labels * 8, labels)
    assert right < 0.3 * wrong
    scores = torch.zeros(1, LABEL_DIM, requires_grad=True)
    classifier_loss(scores, labels).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad[:, label_slices()["hair_color"]].abs().max() == 0
    assert scores.grad[:, label_slices()["mouth"]].abs().max() > 0


def test_training_learns_and_writes_weights(tmp_path: Path) -> None:
    settings = ClassifierSettings(batch=16, held_out=24, config=SMALL)
    figures = train_classifier(settings, Schedule(50, save_every=50), tmp_path)
    assert set(figures) == {*OPTIONS, "background"}
    assert figures["background"] < 0.45  # guessing the mean errs by about 0.5
    judge = load_classifier(tmp_path / WEIGHTS_FILE)
    assert judge.config == SMALL
    images, labels = avatar_batch(held_out_seeds(24), render_layers(32))
    again = accuracies(judge, images, labels)
    assert again["background"] == pytest.approx(figures["background"], abs=5e-3)  # float16


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"judge\.json: no such file"):
        load_classifier(tmp_path / "judge.safetensors")


def test_the_shipped_judge_reads_held_out_avatars() -> None:
    judge = load_classifier(SHIPPED)
    images, labels = avatar_batch(held_out_seeds(64, skip=5_000), render_layers(128))
    found = accuracies(judge, images, labels)
    assert sum(found[a] for a in OPTIONS) / len(OPTIONS) > 0.97
    assert min(found["mouth"], found["eyes"], found["brows"], found["accessory"]) > 0.9
    assert found["background"] < 0.1
