"""Training images: any folder of pictures, or avatars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from velatura.training.gan.images import ImageSet, avatar_images, read_images


def save(path: Path, width: int, height: int, color: tuple[int, ...], **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "RGBA" if len(color) == 4 else "RGB"
    Image.new(mode, (width, height), color).save(path, **options)


def test_a_folder_of_all_kinds_becomes_squares(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 64, 40, (255, 0, 0))
    save(tmp_path / "deep" / "er" / "b.JPG", 40, 64, (0, 255, 0), quality=95)
    save(tmp_path / "c.webp", 200, 100, (0, 0, 255), lossless=True)
    save(tmp_path / "d.png", 32, 32, (0, 0, 0, 0))
    (tmp_path / "notes.txt").write_text("not an image")
    found = read_images(tmp_path, 32)
    assert found.images.shape == (4, 3, 32, 32)
    assert found.images.dtype == torch.uint8
    middle = found.images[:, :, 16, 16].tolist()
    assert middle[0] == [255, 0, 0]
    assert middle[1] == [0, 0, 255]  # a.png, c.webp, d.png, deep/…: in order of their names
    assert middle[2] == [255, 255, 255]  # see-through: over white
    assert middle[3] == pytest.approx([0, 255, 0], abs=3)


def test_the_crop_is_central_and_follows_the_exif_orientation(tmp_path: Path) -> None:
    pixels = np.zeros((64, 192, 3), np.uint8)
    pixels[:, 64:128] = 255  # the middle third is white
    pixels[:32, 64:128, 0] = 0  # its upper half cyan
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    plain, turned = read_images(tmp_path, 32).images
    assert plain[:, 4, 16].tolist() == [0, 255, 255]
    assert plain[:, 28, 1].tolist() == pytest.approx([255, 255, 255], abs=1)
    torch.testing.assert_close(turned, plain.rot90(-1, (1, 2)), atol=1, rtol=0)


def test_resizing_does_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    for name in "ab":
        Image.fromarray(stripes).save(tmp_path / f"{name}.png")
    inner = read_images(tmp_path, 32).images[0, :, :, 4:-4].float()
    assert (inner - 127.5).abs().max().item() < 4


def test_labels_come_from_the_first_folder(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/2.png", "cat/young/3.png"):
        save(tmp_path / name, 32, 32, (9, 9, 9))
    found = read_images(tmp_path, 32, labelled=True)
    assert found.classes == ("cat", "dog")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 1]
    images, class_weights = found.draw(8, torch.Generator().manual_seed(0))
    assert images.shape == (8, 3, 32, 32)
    assert class_weights is not None
    assert class_weights.sum(dim=1).tolist() == [1.0] * 8
    save(tmp_path / "stray.png", 32, 32, (9, 9, 9))
    with pytest.raises(ValueError, match=r"stray\.png: has no class"):
        read_images(tmp_path, 32, labelled=True)


@pytest.mark.parametrize(
    ("content", "suffix"),
    [(b"", "png"), (b"not an image", "jpg"), (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "webp")],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    save(tmp_path / "good.png", 32, 32, (1, 2, 3))
    (tmp_path / f"broken.{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"broken\.{suffix}: cannot be read as an image"):
        read_images(tmp_path, 32)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    save(tmp_path / "good.png", 32, 32, (1, 2, 3))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "short.png")
    whole = (tmp_path / "short.png").read_bytes()
    (tmp_path / "short.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"short\.png: cannot be read as an image"):
        read_images(tmp_path, 32)


def test_limits_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        read_images(tmp_path / "nowhere", 32)
    save(tmp_path / "one.png", 32, 32, (1, 2, 3))
    with pytest.raises(ValueError, match="1 images; two or more"):
        read_images(tmp_path, 32)
    save(tmp_path / "small.png", 15, 99, (1, 2, 3))
    with pytest.raises(ValueError, match=r"small\.png: 15 × 99 pixels; at least 16 along"):
        read_images(tmp_path, 32)
    with pytest.raises(ValueError, match="take 11250 MiB of memory; the limit is 4096 MiB"):
        avatar_images(64, 960_000)
    with pytest.raises(ValueError, match="count: 1000000"):
        avatar_images(64, 1_000_000)
    monkeypatch.setattr("velatura.training.gan.images._LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match=r"one\.png: .* 32 × 32 pixels; the limit is 1000"):
        read_images(tmp_path, 32)


def test_draws_depend_on_the_generator_alone_and_mirror_half() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).expand(2, 3, 32, 32).contiguous()
    source = ImageSet(ramp, mirror=True)
    first, none = source.draw(400, torch.Generator().manual_seed(7))
    again, _ = source.draw(400, torch.Generator().manual_seed(7))
    assert none is None
    assert torch.equal(first, again)
    assert first.min().item() == -1
    mirrored = (first[:, 0, 0, 0] > first[:, 0, 0, -1]).float().mean().item()
    assert mirrored == pytest.approx(0.5, abs=0.1)
    plain, _ = ImageSet(ramp).draw(50, torch.Generator().manual_seed(7))
    assert (plain[:, 0, 0, 0] < plain[:, 0, 0, -1]).all()
