"""The class-conditional GAN's parts and its loop, on tiny networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils import parametrize
from typer.testing import CliRunner

from velatura.export.checkpoints.class_generator import load_class_generator
from velatura.export.networks.biggan import ClassGenerator, ClassGeneratorConfig
from velatura.training.biggan.agreement import evaluate_class_generator, expression_judge
from velatura.training.biggan.average import move_average, standing_statistics
from velatura.training.biggan.data import AvatarSource, FolderSource
from velatura.training.biggan.discriminator import Discriminator, DiscriminatorConfig
from velatura.training.biggan.expressions import CLASSES
from velatura.training.biggan.pair_loss import PairLoss
from velatura.training.biggan.train import ClassRun, ClassTraining, train_class_generator
from velatura.training.cli import app
from velatura.training.runs.logbook import read_csv_log

CONFIG = ClassGeneratorConfig(
    classes=("dark", "light"),
    resolution=16,
    chunk_dim=4,
    embedding_dim=4,
    channels={4: 16, 8: 16, 16: 16},
    attention_resolution=8,
)
SETTINGS = ClassTraining(
    steps=6, batch=4, save_every=3, log_every=1, average_decay=0.9, standing_batches=2
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 210)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(3):
            pixels = np.clip(rng.normal(level, 10, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


def test_the_discriminator_projects_the_class_on_its_features() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(3, {8: 8, 4: 12}, 8)).eval()
    images = torch.rand(5, 3, 16, 16) * 2 - 1
    rows = torch.eye(3)
    with torch.no_grad():
        seen = [network(images, row.expand(5, -1)) for row in rows]
        features = torch.relu(network.features(images)).sum(dim=(2, 3))  # [N, C]
        embedded = network.embed.weight.t()  # [classes, C]
        for index, (score, logits) in enumerate(seen):
            expected = network.score(features)[:, 0] + features @ embedded[index]
            assert score == pytest.approx(expected, abs=1e-5)
            assert logits.shape == (5, 3)
            assert torch.equal(logits, seen[0][1]), "the class head does not know the class"


def test_every_weight_of_the_discriminator_has_norm_one() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(3, {8: 8, 4: 12}, 8)).train()
    with torch.no_grad():
        for _ in range(60):
            network(torch.rand(2, 3, 16, 16), torch.eye(3)[:2])
        modules = [m for m in network.modules() if parametrize.is_parametrized(m, "weight")]
        assert len(modules) == 2 * 3 + 4 + 3
        for module in modules:
            weight: Tensor = module.weight  # type: ignore[assignment]
            assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=0.02)


def test_the_mouth_counts_five_times_as_much_in_the_pair_loss() -> None:
    loss = PairLoss(64)
    black = torch.zeros(1, 3, 64, 64)

    def of(row: int, column: int) -> float:
        image = black.clone()
        image[:, :, row, column] = 0.5
        return loss(image, black).item()

    assert of(44, 32) == pytest.approx(5 * of(5, 5), rel=0.01)
    assert of(25, 32) == pytest.approx(2 * of(5, 5), rel=0.01)


def test_the_average_follows_the_weights_and_counts() -> None:
    torch.manual_seed(0)
    first, second = ClassGenerator(CONFIG), ClassGenerator(CONFIG)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    move_average(first, second, step=10_000, decay=0.9)
    for name, value in first.state_dict().items():
        new = second.state_dict()[name]
        expected = before[name] * 0.9 + new * 0.1 if value.is_floating_point() else new
        assert torch.allclose(value, expected, atol=1e-6), name
    move_average(first, second, step=0, decay=0.9)
    gap = first.first.bias - second.first.bias
    start = before["first.bias"] - second.first.bias
    assert torch.allclose(gap, start * 0.9 * 0.1, atol=1e-6), "quick at the start"


def test_standing_statistics_are_the_mean_over_the_batches() -> None:
    torch.manual_seed(0)
    generator = ClassGenerator(CONFIG)
    batches = [(torch.randn(8, CONFIG.z_dim), torch.eye(2)[torch.arange(8) % 2]) for _ in range(3)]
    given = iter(batches)
    kept = {name: value.clone() for name, value in generator.state_dict().items()}
    plain = standing_statistics(generator, lambda: next(given), 3)
    assert all(torch.equal(kept[n], v) for n, v in generator.state_dict().items()), "unchanged"
    # The first block's norm sees the first layer's output alone.
    with torch.no_grad():
        inputs = [plain.first(z[:, :4]).unflatten(1, (-1, 4, 4)) for z, _ in batches]
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
    norm = plain.blocks[0].norm0.norm  # type: ignore[union-attr]
    assert torch.allclose(norm.running_mean, mean, atol=1e-3)  # type: ignore[arg-type]


def test_a_run_resumes_as_if_it_had_never_stopped(folder: Path, tmp_path: Path) -> None:
    source = FolderSource(folder, 16)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_class_generator(CONFIG, SETTINGS, source, whole)
    # A kill after step 3: the checkpoint and the log are what is left.
    run = ClassRun(CONFIG, SETTINGS, source, halves)
    for step in range(3):
        run.advance(step / 6)
    run.save()
    weights = train_class_generator(CONFIG, SETTINGS, source, halves)
    expected, actual = (read_csv_log(out / "log.csv") for out in (whole, halves))
    assert [row["step"] for row in expected] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(expected[3:], actual, strict=True):
        for column in ("step", "hinge_d", "hinge_g", "class_real", "class_fake"):
            assert one[column] == other[column]
    assert sorted(p.name for p in (whole / "samples").iterdir()) == [
        "step-000003.png", "step-000006.png",
    ]  # fmt: skip
    assert len(list(whole.glob("checkpoint-*"))) == 1
    loaded = load_class_generator(weights)
    assert loaded.config == replace(CONFIG, spectral_norm=False)


def test_the_game_moves_both_networks_and_uses_the_class_head(folder: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, discriminator_steps=2, bf16=True)
    run = ClassRun(CONFIG, settings, FolderSource(folder, 16), tmp_path / "run")
    before = {n: v.clone() for n, v in run.generator.state_dict().items()}
    judge = {n: v.clone() for n, v in run.discriminator.state_dict().items()}
    figures = run.advance(0.5)
    assert np.isfinite([figures[name] for name in ("hinge_d", "hinge_g", "class_fake")]).all()
    assert np.isnan(figures["pairs"])
    assert not torch.equal(before["first.bias"], run.generator.state_dict()["first.bias"])
    head = "classify.bias"
    assert not torch.equal(judge[head], run.discriminator.state_dict()[head])
    assert all(p.requires_grad for p in run.discriminator.parameters())


def test_pairs_teach_the_generator_what_its_latents_mean(tmp_path: Path) -> None:
    config = replace(CONFIG, classes=CLASSES, chunk_dim=20)
    settings = replace(
        SETTINGS, steps=1000, paired_batch=8, paired_share=1.0, paired_learning_rate=5e-3
    )
    run = ClassRun(config, settings, AvatarSource(16, config.z_dim), tmp_path / "run")
    losses = [run.advance(0.0)["pairs"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])
    figures = run.advance(0.95)
    assert np.isfinite(figures["hinge_d"]), "the discriminator watches the end of the pairs"
    assert np.isnan(figures["hinge_g"])


def test_classes_must_be_the_datas(folder: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, classes=("dark", "grey"))
    with pytest.raises(ValueError, match=r"classes: the data has \('dark', 'light'\)"):
        train_class_generator(config, SETTINGS, FolderSource(folder, 16), tmp_path / "run")


def test_agreement_counts_what_the_judge_sees() -> None:
    torch.manual_seed(0)
    generator = ClassGenerator(CONFIG).eval()
    seen: list[int] = []

    def judge(images: Tensor) -> Tensor:
        seen.append(len(images))
        return torch.arange(len(images)) % 4 // 3  # class 0 three times of four

    mean, dark, light = evaluate_class_generator(generator, judge, 80)
    assert seen == [64, 16, 64, 16]
    assert (dark.value, light.value, mean.value) == (0.75, 0.25, 0.5)
    assert (mean.name, dark.name) == ("class agreement", "class agreement: dark")
    assert mean.measured_on.startswith("80 samples a class at psi 0.7")


def test_a_mouth_that_is_no_class_agrees_with_none() -> None:
    from velatura.training.avatars.parts import LABEL_DIM, OPTIONS, label_slices

    mouths = list(OPTIONS["mouth"])

    class Reader(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape == (2, 3, 128, 128)
            scores = torch.zeros(2, LABEL_DIM)
            start = label_slices()["mouth"].start
            scores[0, start + mouths.index("tongue")] = 1
            scores[1, start + mouths.index("concerned")] = 1
            return scores

    judge = expression_judge(Reader())
    assert judge(torch.zeros(2, 3, 64, 64)).tolist() == [CLASSES.index("tongue"), -1]


def test_the_command_names_a_bad_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    arguments = ["biggan", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert "no sub-folders; make one for each class" in result.output
