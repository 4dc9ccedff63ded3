"""The commands, from what is typed to what is written, said and returned."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from velatura.client.cli import app


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (20, 10), (i, 50, 60)).save(folder / f"face{i}.png")
    return folder


@pytest.fixture
def velatura(fake: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command line; the server's address comes from the environment."""
    monkeypatch.setenv("VELATURA_SERVER", fake.target)

    def run(*args: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in args])

    return run


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def test_edit_one_file(fake: Any, velatura: Any, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    run = velatura(
        *("edit", faces / "face1.png", "-o", out, "--edit", "smile=1.5", "--offset", "8:12=0.5"),
        *("--region", "mouth,eyes", "--grow", 2, "--feather", 3, "--layers", "2:6"),
    )
    assert run.exit_code == 0, run.output
    assert out.read_bytes() == (faces / "face1.png").read_bytes()  # the fake echoes
    assert lines(run.stdout) == [
        f"{out}: changed by 12.5 inside 25.0% of the picture, by 0 outside"
    ]
    (request,) = fake.requests
    assert request.image.encoded == (faces / "face1.png").read_bytes()
    assert request.edits[0].direction.strength == 1.5
    assert request.edits[0].direction.layers.end == 6
    assert list(request.edits[1].offset.values) == [0.5]
    assert [p.class_name for p in request.region.parts] == ["mouth", "eyes"]
    assert (request.region.grow_px, request.region.feather_px) == (2, 3)


def test_server_option_wins_over_the_environment(
    fake: Any, velatura: Any, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VELATURA_SERVER", "127.0.0.1:1")
    run = velatura(
        *("edit", faces / "face1.png", "-o", tmp_path / "o.png", "--edit", "smile"),
        *("--server", fake.target, "--api-key", "k"),
    )
    assert run.exit_code == 0, run.output
    assert fake.metadata[0]["authorization"] == "Bearer k"


def test_edit_a_folder_goes_on_past_bad_files(
    fake: Any, velatura: Any, faces: Path, tmp_path: Path
) -> None:
    (faces / "face2.png").write_bytes(b"this is no picture")
    out = tmp_path / "out"
    run = velatura("edit", faces, "-o", out, "--edit", "smile=1")
    assert run.exit_code == 1
    assert sorted(p.name for p in out.iterdir()) == [f"face{i}.png" for i in (0, 1, 3, 4)]
    said = lines(run.stderr)
    assert said[0].startswith(f"velatura: {faces / 'face2.png'}: image: not an image")
    assert said[-1] == f"velatura: 1 of 5 files failed: {faces / 'face2.png'}"
    assert len(said) == 2


def test_a_whole_folder_says_how_many(velatura: Any, faces: Path, tmp_path: Path) -> None:
    run = velatura("edit", faces, "-o", tmp_path / "out", "--edit", "smile=1", "--format", "jpeg")
    assert run.exit_code == 0
    assert re.fullmatch(r"edited: 5 files in \d+\.\d s", run.stderr.strip())
    assert (tmp_path / "out" / "face0.jpg").exists()


def test_tokens_are_edited_too(fake: Any, velatura: Any, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    assert velatura("encode", faces, "-o", out).exit_code == 0
    assert (out / "face0.latent").read_bytes() == b"token"
    fake.requests.clear()
    run = velatura("edit", out / "face0.latent", "-o", tmp_path / "o.png", "--edit", "smile")
    assert run.exit_code == 0
    assert fake.requests[0].latent_token == b"token"
    assert lines(run.stdout) == [str(tmp_path / "o.png")]


def test_encode_with_reconstruction(velatura: Any, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "face.latent"
    run = velatura("encode", faces / "face0.png", "-o", out, "--reconstruction")
    assert run.exit_code == 0
    assert "PSNR 23.5 dB" in run.stdout
    assert Image.open(tmp_path / "face.reconstruction.png").size == (6, 4)


def test_stylize(fake: Any, velatura: Any, faces: Path, tmp_path: Path) -> None:
    run = velatura(
        *("stylize", faces / "face0.png", "-o", tmp_path / "o.jpg", "--style", "candy:2"),
        *("--style", faces / "face1.png", "--strength", 0.8, "--preserve-color"),
        *("--box", "1,2,3,4", "--invert"),
    )
    assert run.exit_code == 0, run.output
    (request,) = fake.requests
    assert (request.styles[0].preset, request.styles[0].weight) == ("candy", 2)
    assert request.styles[1].image.encoded == (faces / "face1.png").read_bytes()
    assert request.strength == pytest.approx(0.8)
    assert request.preserve_color
    assert request.region.invert
    assert request.region.parts[0].box.height == 4
    assert request.output.format == 2  # JPEG, from OUT's name


def test_segment_writes_labels_and_overlay(velatura: Any, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.png"
    run = velatura("segment", faces / "face0.png", "-o", out, "--overlay")
    assert run.exit_code == 0, run.output
    assert Image.open(out).mode == "L"
    assert Image.open(tmp_path / "labels.overlay.png").size == (6, 4)
    assert [line.split() for line in lines(run.stdout)[1:]] == [
        ["0", "background", "83.3%"],
        ["2", "hair", "16.7%"],
    ]


def test_generate(fake: Any, velatura: Any, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    run = velatura(
        *("generate", "-o", out, "--seed", "1..3", "--psi", 0.5, "--edit", "smile=1"),
        *("--mix-seed", 9, "--mix-layers", "0:4"),
    )
    assert run.exit_code == 0, run.output
    assert sorted(p.name for p in out.iterdir()) == [f"seed-000{i}.png" for i in (1, 2, 3)]
    assert Image.open(out / "seed-0002.png").getpixel((0, 0)) == (2, 0, 0)
    (request,) = fake.requests
    assert request.truncation_psi == 0.5
    assert (request.mixing.seed, request.mixing.layers.end) == (9, 4)
    single = velatura("generate", "-o", tmp_path / "one.jpg", "--seed", 5)
    assert single.exit_code == 0
    assert lines(single.stdout) == [str(tmp_path / "one.jpg")]


def test_models_as_tables_and_json(velatura: Any) -> None:
    run = velatura("models")
    assert run.exit_code == 0, run.output
    for word in ("avatar-synthesis", "ready", "CPU", "1,800,000", "PSNR 23.25 dB"):
        assert word in run.stdout
    for word in ("smile", "2:8", "-2 … 2", "night-city", "Region classes: mouth"):
        assert word in run.stdout
    whole = json.loads(velatura("models", "--json").stdout)
    assert whole["directions"]["avatar"][0]["name"] == "smile"
    assert whole["region_classes"] == [{"index": 6, "name": "mouth"}]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["edit", "IN", "-o", "o.png"], "--edit: give at least one"),
        (["edit", "IN", "-o", "o.png", "--edit", "smile=x"], "--edit: 'x' is not a number"),
        (["edit", "none.png", "-o", "o.png", "--edit", "smile"], "no file or folder none.png"),
        (["edit", "IN", "-o", "IN", "--edit", "smile"], "--overwrite"),
        (["edit", "IN", "-o", "o.png", "--edit", "a", "--box", "1,2"], "--box: '1,2'"),
        (["stylize", "IN", "-o", "o.png", "--style", "no.jpg"], "--style: there is no file"),
        (["segment", "IN", "-o", "o.jpg"], "--out: "),
        (["generate", "-o", "o.png", "--seed", "1..2"], "2 pictures need a folder"),
        (["generate", "-o", "o", "--seed", "a"], "--seed: 'a'"),
        (["edit", "IN", "-o", "o.png", "--edit", "a", "--ca", "no.pem"], "--ca: there is no file"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    fake: Any, velatura: Any, faces: Path, args: list[str], says: str
) -> None:
    run = velatura(*[faces / "face0.png" if a == "IN" else a for a in args])
    assert run.exit_code == 2
    (line,) = lines(run.stderr)
    assert line.startswith("velatura: ")
    assert says in line
    assert fake.requests == []


@pytest.mark.parametrize("args", [["edit"], ["generate", "--psi", "3", "-o", "x", "--seed", "1"]])
def test_usage_errors_are_code_2(velatura: Any, args: list[str]) -> None:
    assert velatura(*args).exit_code == 2


def test_the_servers_refusal_is_one_line_and_code_1(
    fake: Any, velatura: Any, faces: Path, tmp_path: Path
) -> None:
    fake.behaviours["EditImage"] = lambda _, context: context.abort(
        grpc.StatusCode.INVALID_ARGUMENT, "edits[0].direction.name: unknown direction 'smirk'"
    )
    run = velatura("edit", faces / "face0.png", "-o", tmp_path / "o.png", "--edit", "smirk=1")
    assert run.exit_code == 1
    (line,) = lines(run.stderr)
    assert "unknown direction 'smirk'" in line
    assert not (tmp_path / "o.png").exists()


def test_no_server_stops_a_folder_at_once(velatura: Any, faces: Path, tmp_path: Path) -> None:
    run = velatura(
        *("edit", faces, "-o", tmp_path / "out", "--edit", "smile", "--jobs", 1),
        *("--server", "127.0.0.1:1"),
    )
    assert run.exit_code == 1
    said = lines(run.stderr)
    assert "is the server running there? --server or VELATURA_SERVER names it" in said[0]
    assert "stopped there" in said[-1]
    assert len(said) == 2  # not one line for each file


def test_no_server_for_the_catalog(velatura: Any) -> None:
    run = velatura("models", "--server", "127.0.0.1:1")
    assert run.exit_code == 1
    assert len(lines(run.stderr)) == 1


def test_overwrite(fake: Any, velatura: Any, faces: Path) -> None:
    from velatura.v1 import edit_pb2, image_pb2

    buffer = io.BytesIO()
    Image.new("RGB", (3, 3)).save(buffer, "PNG")
    fake.behaviours["EditImage"] = lambda *_: edit_pb2.EditImageResponse(
        image=image_pb2.Image(encoded=buffer.getvalue())
    )
    face = faces / "face0.png"
    assert velatura("edit", face, "-o", face, "--edit", "smile").exit_code == 2
    assert velatura("edit", face, "-o", face, "--edit", "smile", "--overwrite").exit_code == 0
    assert face.read_bytes() == buffer.getvalue()


def test_version_and_help(velatura: Any) -> None:
    assert re.fullmatch(r"velatura \d+\.\d+\.\d+", velatura("--version").stdout.strip())
    text = velatura("--help").stdout
    for command in ("edit", "stylize", "segment", "encode", "generate", "models"):
        assert command in text
