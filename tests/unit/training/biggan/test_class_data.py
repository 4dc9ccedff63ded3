"""The avatars that a z and a class stand for, and a person's own folder of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from velatura.training.biggan.data import AvatarSource, FolderSource, read_classes
from velatura.training.biggan.expressions import (
    BACKGROUND,
    CLASSES,
    CLOTHING_COLOR,
    PATHS,
    SHADE,
    SHAPES,
    Z_DIM,
    ExpressionRenders,
    leading,
)


@pytest.fixture(scope="module")
def renders() -> ExpressionRenders:
    return ExpressionRenders(64)


def test_no_two_attributes_share_a_dimension_of_z() -> None:
    spans = [(start, len(options)) for start, options in SHAPES.values()]
    spans += [(start, 1) for start, _ in PATHS.values()]
    spans += [(CLOTHING_COLOR, 3), (BACKGROUND, 3), (SHADE, 1)]
    used = [place for start, count in spans for place in range(start, start + count)]
    assert len(set(used)) == len(used)
    assert max(used) < Z_DIM
    # A generator reads z in chunks of twelve: no shape may be torn between two blocks.
    for start, options in SHAPES.values():
        assert start // 12 == (start + len(options) - 1) // 12


def test_the_class_changes_the_mouth_alone(renders: ExpressionRenders) -> None:
    z = torch.randn(1, Z_DIM, generator=torch.Generator().manual_seed(4))
    images = renders.images(z.expand(len(CLASSES), -1), torch.arange(len(CLASSES)))
    assert images.shape == (len(CLASSES), 3, 64, 64)
    assert images.min() >= -1
    assert images.max() <= 1
    rows = slice(round(64 * 0.58), round(64 * 0.82))
    columns = slice(round(64 * 0.32), round(64 * 0.68))
    apart = (images[:, None] - images[None]).abs()  # [C, C, 3, R, R]
    mouths = apart[..., rows, columns].amax(dim=(2, 3, 4))
    assert (mouths + torch.eye(len(CLASSES)) > 0.3).all(), "every two classes differ visibly"
    apart[..., rows, columns] = 0
    assert apart.max() < 0.02, "nothing else changes"


def test_each_part_of_z_changes_the_image(renders: ExpressionRenders) -> None:
    middle = renders.images(torch.zeros(1, Z_DIM), torch.tensor([0]))
    for start, options in SHAPES.values():
        for option in range(1, len(options)):
            z = torch.zeros(1, Z_DIM)
            z[0, start + option] = 3
            assert (renders.images(z, torch.tensor([0])) - middle).abs().max() > 0.2
    for start, count in (*((start, 1) for start, _ in PATHS.values()), (48, 3), (51, 3), (54, 1)):
        for place in range(start, start + count):
            z = torch.zeros(1, Z_DIM)
            z[0, place] = 1
            assert (renders.images(z, torch.tensor([0])) - middle).abs().max() > 0.05


def test_colours_move_with_z_without_jumps(renders: ExpressionRenders) -> None:
    z = torch.zeros(200, Z_DIM)
    z[:, 36] = torch.linspace(-2, 2, 200)
    z[:, 37] = torch.linspace(2, -2, 200)
    images = renders.images(z, torch.zeros(200, dtype=torch.int64))
    steps = (images[1:] - images[:-1]).abs().amax(dim=(1, 2, 3))
    assert 0 < steps.max() < 0.1


def test_the_average_is_the_first_option_of_every_shape() -> None:
    for name in SHAPES:
        assert int(leading(torch.zeros(1, Z_DIM), name)) == 0
        shares = torch.bincount(leading(torch.randn(4000, Z_DIM), name)) / 4000
        assert shares.min() > 0.03, "every option occurs"


def test_avatars_come_with_their_latents_and_repeat_by_seed() -> None:
    source = AvatarSource(16, Z_DIM)
    first, again, other = (
        source.draw(6, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.z is not None
    assert first.z.shape == (6, Z_DIM)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    expected = ExpressionRenders(16).images(first.z, first.labels)
    assert torch.equal(first.images, expected)
    with pytest.raises(ValueError, match="z_dim: 59 dimensions cannot hold the 60"):
        AvatarSource(16, 59)


def write_folder(root: Path) -> Path:
    """Three red images, one blue one, and things that are no images."""
    for name, color, count in (("red", (250, 0, 0), 3), ("blue", (0, 0, 250), 1)):
        (root / name).mkdir()
        for index in range(count):
            Image.new("RGB", (30, 20 + index), color).save(root / name / f"{index}.png")
    (root / "red" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    return root


def test_a_folders_classes_are_drawn_evenly(tmp_path: Path) -> None:
    source = FolderSource(write_folder(tmp_path), 8)
    assert source.classes == ("blue", "red")
    drawn = source.draw(400, torch.Generator().manual_seed(0))
    assert drawn.z is None
    assert drawn.images.shape == (400, 3, 8, 8)
    assert 150 < int((drawn.labels == 0).sum()) < 250, "though there is one blue image to three"
    red = drawn.images[:, 0] > 0.9
    assert torch.equal(red.all(dim=2).all(dim=1), drawn.labels == 1)


def test_images_are_cut_to_a_square(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(tmp_path / "a" / "wide.png")
    images, labels, classes = read_classes(tmp_path, 8)
    assert (images == 200).all()
    assert (labels.tolist(), classes) == ([0], ("a",))


def test_a_bad_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sub-folders; make one for each class"):
        read_classes(tmp_path, 8)
    write_folder(tmp_path)
    (tmp_path / "red" / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"broken\.png: not a readable image"):
        read_classes(tmp_path, 8)
    (tmp_path / "red" / "broken.png").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no PNG, JPEG or WebP images of class 'empty'"):
        read_classes(tmp_path, 8)
