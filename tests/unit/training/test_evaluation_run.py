"""The whole evaluation on tiny untrained networks: every part runs and lands in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from velatura.export.checkpoints.native import load_directions, save_weights
from velatura.export.networks.biggan import ClassGenerator, ClassGeneratorConfig
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.segmenter import SegmenterConfig, build_segmenter
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.training.avatars.parts import MASK_CLASSES
from velatura.training.biggan.expressions import CLASSES
from velatura.training.classifier.network import AttributeClassifier, ClassifierConfig
from velatura.training.cli import app
from velatura.training.directions.catalog import EDITS
from velatura.training.evaluation.figures import Measured
from velatura.training.evaluation.run import EvaluationSettings, run_evaluation


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    generator = GeneratorConfig(
        mapping_layers=1, w_dim=16, z_dim=16, channels={4 << i: 4 for i in range(6)}
    )
    encoder = EncoderConfig(w_dim=16, channels=(4,) * 5, blocks=(1,) * 5, head_channels=8)
    judge = ClassifierConfig(channels=(8, 8), blocks=(1, 1), features=16)
    segmenter = SegmenterConfig(
        "deeplabv3plus", "tu-mobilenetv3_small_100", MASK_CLASSES, 128, (32,)
    )
    save_weights(folder / "avatar-generator.safetensors", Generator(generator), generator)
    save_weights(folder / "avatar-encoder.safetensors", Encoder(encoder), encoder)
    save_weights(folder / "avatar-classifier.safetensors", AttributeClassifier(judge), judge)
    network = build_segmenter(segmenter)
    save_weights(folder / "avatar-segmenter.safetensors", network, segmenter)
    sampler = ClassGeneratorConfig(
        CLASSES, 8, chunk_dim=2, channels={4: 8, 8: 8}, attention_resolution=8
    )
    save_weights(folder / "avatar-biggan.safetensors", ClassGenerator(sampler), sampler)
    return folder


def test_everything_is_measured_and_reported(weights: Path, tmp_path: Path) -> None:
    edits = tuple(edit for edit in EDITS if edit.name in {"smile", "background_blue"})
    run_evaluation(EvaluationSettings(weights, out=tmp_path, edits=edits).quick())
    figures = json.loads((weights / "figures.json").read_text())
    names = {network: {f["name"] for f in rows} for network, rows in figures.items()}
    assert set(names) == {"avatar-synthesis", "avatar-encoder", "avatar-segmenter"} | {
        "avatar-expressions"
    }
    assert {"class agreement", "class agreement: smile"} <= names["avatar-expressions"]
    assert {"FID/renders", "FID/psi_0.7", "FID/ratio_psi_0.7", "PPL/w"} <= names["avatar-synthesis"]
    assert {"PSNR", "MS-SSIM", "kept/mouth", "consistency/PSNR"} <= names["avatar-encoder"]
    assert {"mIoU", "IoU/hair"} <= names["avatar-segmenter"]
    for row in figures["avatar-encoder"]:
        Measured(**row)  # the manifest's fields, no more and no less
    directions = load_directions(weights / "avatar-directions.json", 12, 16)
    assert [d.name for d in directions.directions] == ["smile", "background_blue"]
    assert all(len(d.figures) == 2 for d in directions.directions)
    page = (tmp_path / "evaluation.md").read_text()
    assert "domain features (avatar classifier)" in page
    assert "| inversion, PSNR | ≥ 25 dB |" in page
    assert "**no**" in page  # untrained networks reach nothing
    pictures = sorted((tmp_path / "images" / "evaluation").glob("*.png"))
    assert {f"images/evaluation/{p.name}" for p in pictures} == {
        link.split(")")[0] for link in page.split("](")[1:]
    }
    for path in pictures:
        with Image.open(path) as picture:
            assert min(picture.size) > 90


def test_a_missing_judge_is_named(weights: Path, tmp_path: Path) -> None:
    for path in weights.glob("avatar-[!c]*"):
        (tmp_path / path.name).symlink_to(path)
    result = CliRunner().invoke(app, ["evaluate", "--weights", str(tmp_path), "--quick"])
    assert result.exit_code != 0
    assert "avatar-classifier.json: no such file" in str(result.exception) + result.output
