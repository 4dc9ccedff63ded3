"""The installed `velatura` command against a real server, as people run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from ..running import RunningServer

IMAGES = Path(__file__).parents[2] / "examples" / "images"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def velatura(server: RunningServer, tmp_path: Path) -> Run:
    """Run the command in an empty directory, with the server's address in the environment."""
    environment = os.environ | {"VELATURA_SERVER": server.address}

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("velatura")), *map(str, args)]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    return run


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_edit_a_folder(velatura: Run, tmp_path: Path, direction: str) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    for name in ("rowan.png", "sven.png"):
        shutil.copy(IMAGES / name, faces)
    (faces / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    box = (300, 200, 60, 50)
    run = velatura(
        "edit", "faces", "-o", "out", "--edit", f"{direction}=2", "--box", ",".join(map(str, box))
    )
    assert run.returncode == 1
    assert "faces/broken.png" in run.stderr
    assert "1 of 3 files failed" in run.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["rowan.png", "sven.png"]
    for name in ("rowan.png", "sven.png"):
        before, after = Image.open(faces / name), Image.open(tmp_path / "out" / name)
        changed = ImageChops.difference(before.convert("RGB"), after.convert("RGB")).getbbox()
        assert changed is not None
        assert changed[0] >= 300
        assert changed[1] >= 200
        assert changed[2] <= 360
        assert changed[3] <= 250


def test_stylize_with_a_picture_and_a_preset(
    velatura: Run, tmp_path: Path, styles: list[str]
) -> None:
    with Image.open(IMAGES / "dandelions.jpg") as photograph:
        photograph.resize((160, 90)).save(tmp_path / "small.jpg")
    for style in (styles[0], f"{IMAGES / 'brushes.jpg'}:2"):
        run = velatura(
            *("stylize", "small.jpg", "-o", "out.png", "--style", style),
            *("--strength", 0.8, "--preserve-color"),
        )
        assert run.returncode == 0, run.stderr
        assert size_of(tmp_path / "out.png") == (160, 90)
        assert "by 0 outside" in run.stdout


def test_segment_encode_and_edit_the_token(velatura: Run, tmp_path: Path, direction: str) -> None:
    run = velatura("segment", IMAGES / "sven.png", "-o", "labels.png", "--overlay")
    assert run.returncode == 0, run.stderr
    assert size_of(tmp_path / "labels.png") == (720, 540)
    assert size_of(tmp_path / "labels.overlay.png") == (720, 540)
    run = velatura("encode", IMAGES / "sven.png", "-o", "sven.latent", "--reconstruction")
    assert run.returncode == 0, run.stderr
    assert "PSNR" in run.stdout
    run = velatura("edit", "sven.latent", "-o", "edited.png", "--edit", f"{direction}=1")
    assert run.returncode == 0, run.stderr
    assert size_of(tmp_path / "edited.png") == size_of(tmp_path / "sven.reconstruction.png")


def test_generate(velatura: Run, tmp_path: Path) -> None:
    run = velatura("generate", "-o", "samples", "--seed", "1..3", "--psi", "0.7")
    assert run.returncode == 0, run.stderr
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert names == ["seed-0001.png", "seed-0002.png", "seed-0003.png"]


def test_models(velatura: Run, direction: str, styles: list[str]) -> None:
    run = velatura("models")
    assert run.returncode == 0, run.stderr
    for word in (direction, styles[0], "avatar-synthesis", "ready", "Region classes"):
        assert word in run.stdout
    catalog = json.loads(velatura("models", "--json").stdout)
    assert direction in [d["name"] for found in catalog["directions"].values() for d in found]


def test_an_unknown_direction_is_one_line(velatura: Run, tmp_path: Path) -> None:
    run = velatura("edit", IMAGES / "rowan.png", "-o", "o.png", "--edit", "sorcery=1")
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    assert "edits[0].direction.name" in line
    assert "sorcery" in line
    assert not (tmp_path / "o.png").exists()
