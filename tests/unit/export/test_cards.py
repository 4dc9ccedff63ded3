"""Model cards: how the weights were trained, and what they make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from velatura.export.avatar_networks import load_training
from velatura.export.bundle import export_network
from velatura.export.errors import CheckpointError
from velatura.export.networks.biggan import ClassGenerator, ClassGeneratorConfig, baked
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.export.pictures import sampled, sampled_classes, save_pictures
from velatura.export.specification import Background, NetworkSpec, Port, TrainingRun
from velatura.v1 import bundle_pb2

SPEC = NetworkSpec(
    "linear",
    bundle_pb2.ROLE_MAPPING,
    torch.nn.Linear(3, 2).eval(),
    (Port("x", (-1, 3)),),
    (Port("y", (-1, 2)),),
    Background("A line.", "Apache-2.0", "nowhere", "nothing"),
)


def test_a_card_tells_the_training_and_shows_the_samples(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    runs = (TrainingRun("train --fast", 1200, 34.6), TrainingRun("train --slow"))
    spec = replace(SPEC, training=runs, pictures=lambda: torch.zeros(3, 3, 8, 8), picture_columns=2)
    entry = export_network(spec, tmp_path)
    text = (tmp_path / entry.card).read_text()
    assert "- `train --fast`: 1,200 steps, 35 minutes\n- `train --slow`\n" in text
    assert "](linear.png)" in text
    with Image.open(tmp_path / "cards" / "linear.png") as picture:
        assert picture.size == (20, 20)


def test_a_card_without_them_says_nothing_of_them(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    text = (tmp_path / export_network(SPEC, tmp_path).card).read_text()
    assert "## Training\n" not in text
    assert "## Samples" not in text
    assert not list(tmp_path.rglob("*.png"))


def test_pictures_lie_in_rows_and_keep_their_colours(tmp_path: Path) -> None:
    colors = torch.tensor([[-1.0, -1, -1], [1, -1, -1], [-1, 1, -1]])
    save_pictures(tmp_path / "x.png", colors[:, :, None, None].expand(-1, -1, 8, 8), 2)
    with Image.open(tmp_path / "x.png") as picture:
        rgb = picture.convert("RGB")
        places = [(4, 4), (14, 4), (4, 14), (14, 14)]
        seen = [rgb.getpixel(place) for place in places]
    assert seen == [(0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 255)]


def test_samples_are_the_same_every_time() -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(resolution=16, w_dim=8, z_dim=8, channels={4: 4, 8: 4, 16: 4})
    generator = Generator(config).eval()
    first = sampled(generator, 4)
    assert first.shape == (4, 3, 16, 16)
    assert torch.equal(first, sampled(generator, 4))
    assert not torch.equal(first[0], first[1])


def test_classes_share_their_latents_row_by_row() -> None:
    torch.manual_seed(0)
    config = ClassGeneratorConfig(
        ("a", "b"), 8, chunk_dim=2, channels={4: 8, 8: 8}, attention_resolution=8
    )
    generator = baked(ClassGenerator(config).eval())
    images = sampled_classes(generator, 3)
    assert images.shape == (6, 3, 8, 8)
    assert (images[0] - images[3]).abs().max() > 1e-4  # the same z, another class


@pytest.mark.parametrize("text", ["[1]", '{"x": 3}', '{"x": [{"order": "y"}]}', "{"])
def test_another_forms_runs_are_refused(tmp_path: Path, text: str) -> None:
    assert load_training(tmp_path) == {}
    (tmp_path / "runs.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"runs\.json: expected"):
        load_training(tmp_path)
