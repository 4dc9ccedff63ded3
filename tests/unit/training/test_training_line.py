"""Every step from nothing to weights, a few updates each: runs, files and names fit each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from velatura.export.checkpoints.native import load_encoder, load_generator, save_weights
from velatura.export.networks.segmenter import SegmenterConfig, build_segmenter
from velatura.training.assemble import Runs, assemble_weights
from velatura.training.avatars.layers import render_layers
from velatura.training.classifier.network import AttributeClassifier, ClassifierConfig
from velatura.training.directions.catalog import EDITS
from velatura.training.directions.supervised import paired_direction
from velatura.training.evaluation.edits import encode_faces, measure_edit
from velatura.training.evaluation.inversion import evaluate_inversion
from velatura.training.evaluation.subjects import Subjects
from velatura.training.generator.encode import EncodeSettings, train_images, train_latents
from velatura.training.generator.mapping import MappingSettings, fit_mapping
from velatura.training.generator.pretrain import PretrainSettings, pretrain
from velatura.training.runs.checkpoint import latest_checkpoint
from velatura.training.runs.loop import Schedule

FEW = Schedule(steps=2, save_every=2)


def newest(run: Path) -> Path:
    found = latest_checkpoint(run)
    assert found is not None
    return found


def new_judge() -> AttributeClassifier:
    torch.manual_seed(0)
    return AttributeClassifier(ClassifierConfig(channels=(8, 8), blocks=(1, 1))).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two steps of every stage give."""
    out = tmp_path_factory.mktemp("line")
    pretrain(PretrainSettings(64, batch=2, compile=False), FEW, out / "64")
    settings = PretrainSettings(128, batch=2, compile=False)
    pretrain(settings, FEW, out / "128", newest(out / "64"))
    encode = EncodeSettings(batch=2, compile=False)
    train_latents(encode, FEW, out / "encoder")
    train_images(encode, FEW, out / "joint", newest(out / "128"), newest(out / "encoder"))
    fit_mapping(MappingSettings(samples=4096), out / "mapping")
    config = SegmenterConfig("deeplabv3plus", "tu-mobilenetv3_small_100", ("a", "b"), 128, (32,))
    save_weights(out / "segmenter" / "segmenter.safetensors", build_segmenter(config), config)
    runs = Runs(newest(out / "joint"), out / "mapping", segmenter=out / "segmenter")
    assemble_weights(runs, out / "weights")
    assert list((out / "joint" / "samples").glob("*.png"))
    return out / "weights"


def test_weights_load_and_reconstruct(weights: Path) -> None:
    generator = load_generator(weights / "avatar-generator.safetensors")
    encoder = load_encoder(weights / "avatar-encoder.safetensors")
    found = evaluate_inversion(generator, encoder, new_judge(), render_layers(128), count=4)
    figures = {f.name: f.value for f in found}
    assert 2 < figures["PSNR"] < 40
    assert 0 <= figures["kept/mouth"] <= 1
    with torch.inference_mode():
        image = generator(torch.randn(2, 128), torch.tensor([0.7, 1.0]))
    assert image.shape == (2, 3, 128, 128)


def test_psi_zero_gives_the_face_of_the_nearest_centre(weights: Path) -> None:
    mapping = load_generator(weights / "avatar-generator.safetensors").mapping
    z = torch.randn(16, 128)
    with torch.inference_mode():
        w, pulled = mapping(z, torch.ones(16)), mapping(z, torch.zeros(16))
    distances = torch.cdist(w, mapping.w_centres)  # [16, centres]
    torch.testing.assert_close(pulled, mapping.w_centres[distances.argmin(dim=1)])


def test_directions_come_from_pairs_and_are_measured(weights: Path) -> None:
    generator = load_generator(weights / "avatar-generator.safetensors")
    encoder = load_encoder(weights / "avatar-encoder.safetensors")
    layers = render_layers(128)
    smile = next(edit for edit in EDITS if edit.name == "smile")
    offsets = paired_direction(smile, encoder, layers, range(4))
    assert offsets.shape == (12, 128)
    assert offsets.abs().max() > 0
    subjects = Subjects(weights, generator, encoder, {}, new_judge(), layers)
    faces = encode_faces(range(1_000_000, 1_000_004), subjects)
    effect = measure_edit(smile, offsets, faces, generator, new_judge())
    assert [f.name for f in effect.figures("here")] == ["success", "preservation"]
    still = measure_edit(smile, torch.zeros(12, 128), faces, generator, new_judge())
    assert still.preservation == 1.0  # no edit, nothing else changed
