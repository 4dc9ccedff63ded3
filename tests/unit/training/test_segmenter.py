"""The segmenter's data, metrics and training loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from velatura.export.checkpoints.native import load_segmenter
from velatura.export.networks.segmenter import SegmenterConfig, build_segmenter
from velatura.training.runs.checkpoint import latest_checkpoint
from velatura.training.runs.loop import Schedule
from velatura.training.segmenter.augmentation import augment, soften_and_grain
from velatura.training.segmenter.labelled_images import LabelledImages, read_folder
from velatura.training.segmenter.metrics import confusion_matrix, iou_per_class
from velatura.training.segmenter.train import SegmenterTraining, train_segmenter

CLASSES = ("background", "disc")


def discs(count: int, size: int = 64) -> LabelledImages:
    """Bright discs at random places on dark noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    images = rng.integers(0, 90, (count, 3, size, size), np.uint8)
    labels = np.zeros((count, size, size), np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = rng.integers(16, size - 16, 2)
        label[(rows - y) ** 2 + (columns - x) ** 2 < 144] = 1
        image[:, label == 1] = 220
    return LabelledImages(torch.from_numpy(images), torch.from_numpy(labels), CLASSES)


def test_iou_follows_its_definition() -> None:
    truth = torch.tensor([0, 0, 1, 1, 1, 2])
    guess = torch.tensor([0, 1, 1, 1, 0, 2])
    matrix = confusion_matrix(guess, truth, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    iou = iou_per_class(matrix)
    assert iou[:3].tolist() == pytest.approx([1 / 3, 2 / 4, 1.0])
    assert iou[3].isnan()  # neither there nor predicted


def test_augmentation_keeps_labels_on_their_pixels() -> None:
    image, labels = discs(64).take(torch.arange(64))
    rng = torch.Generator().manual_seed(0)
    changed, moved = augment(image, labels, rng)
    assert changed.shape == image.shape
    assert moved.shape == labels.shape
    assert changed.abs().max() <= 1
    assert not torch.equal(moved, labels)
    grey = changed.mean(dim=1)
    brighter = [grey[i][moved[i] == 1].mean() > grey[i][moved[i] == 0].mean() for i in range(64)]
    # Colours and backgrounds change as well, so now and then the surroundings end up brighter.
    assert sum(brighter) > 48


def test_softening_keeps_colours_and_places() -> None:
    image, _ = discs(32).take(torch.arange(32))
    softened = soften_and_grain(image, torch.Generator().manual_seed(0))
    assert (softened.mean(dim=(2, 3)) - image.mean(dim=(2, 3))).abs().max() < 0.1
    assert softened.abs().max() <= 1


def write_folder(folder: Path, data: LabelledImages) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    (folder / "classes.txt").write_text("\n".join(data.classes))
    for i in range(len(data)):
        pixels = data.images[i].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        Image.fromarray(data.labels[i].numpy()).save(folder / "masks" / f"{i}.png")


def test_a_folder_becomes_a_data_set(tmp_path: Path) -> None:
    data = discs(3)
    write_folder(tmp_path, data)
    read = read_folder(tmp_path, 64)
    assert read.classes == CLASSES
    assert torch.equal(read.images, data.images)
    assert torch.equal(read.labels, data.labels)


def test_a_folders_faults_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, discs(2))
    (tmp_path / "masks" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"1\.png: its mask .* is missing"):
        read_folder(tmp_path, 64)
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(tmp_path / "masks" / "1.png")
    with pytest.raises(ValueError, match="class index 7, but there are 2 classes"):
        read_folder(tmp_path, 64)


def test_unknown_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown segmenter 'segnet'; use deeplabv3plus"):
        SegmenterConfig("segnet", "resnet18", CLASSES)  # type: ignore[arg-type]


@pytest.mark.parametrize("widths", [(64, 32), (32, 16, 16, 8, 8)])
def test_widths_that_attention_cannot_squeeze_are_refused(widths: tuple[int, ...]) -> None:
    config = SegmenterConfig("unet_scse", "tu-mobilenetv3_small_100", CLASSES, 64, widths)
    with pytest.raises(ValueError, match="decoder_channels: unet_scse takes three to five widths"):
        build_segmenter(config)


@pytest.mark.parametrize(
    ("architecture", "widths"),
    [("deeplabv3plus", (64,)), ("unet_scse", (32, 16, 16, 16, 16))],
)
def test_logits_have_the_images_size(architecture: str, widths: tuple[int, ...]) -> None:
    config = SegmenterConfig(
        architecture,  # type: ignore[arg-type]
        "tu-mobilenetv3_small_100",
        CLASSES,
        64,
        widths,
    )
    with torch.inference_mode():
        logits = build_segmenter(config).eval()(torch.zeros(2, 3, 64, 96))
    assert logits.shape == (2, 2, 64, 96)


def test_training_learns_resumes_and_writes_weights(tmp_path: Path) -> None:
    data = discs(48)
    config = SegmenterConfig("deeplabv3plus", "tu-mobilenetv3_small_100", CLASSES, 64, (32,))
    settings = SegmenterTraining(batch=8)
    half = Schedule(steps=20, save_every=20)
    train_segmenter(config, settings, half, data, data, tmp_path)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-00000020.safetensors"
    whole = Schedule(steps=70, save_every=70)
    figures = train_segmenter(config, settings, whole, data, data, tmp_path)
    assert figures["IoU/disc"] > 0.5
    network, read = load_segmenter(tmp_path / "segmenter.safetensors")
    assert read == config
    with torch.inference_mode():
        image, _ = data.take(torch.arange(2))
        assert network(image).shape == (2, 2, 64, 64)
