"""What is read, and where answers go."""

from __future__ import annotations

from pathlib import Path

import pytest

from velatura.client.cli import files
from velatura.client.cli.arguments import BadArgument


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    faces = tmp_path / "faces"
    (faces / "nested").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "c.bmp", "notes.txt", ".hidden.png", "nested/d.png", "e.latent"):
        (faces / name).write_bytes(b"x")
    return faces


def test_one_file_to_one_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.webp"
    (job,) = files.plan([folder / "b.png"], str(out), overwrite=False)
    assert (job.source, job.target, job.format) == (folder / "b.png", out, "webp")


def test_folders_are_read_flat_and_keep_names(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = files.plan([folder], str(out), overwrite=False)
    assert [(j.source.name, j.target.name, j.format) for j in jobs] == [
        ("a.JPG", "a.JPG", None),
        ("b.png", "b.png", None),
        ("c.bmp", "c.png", None),  # the server does not write BMP
    ]
    latents = files.plan([folder], str(out), overwrite=False, allow_latents=True)
    assert [j.target.name for j in latents] == ["a.JPG", "b.png", "c.png", "e.png"]


def test_format_and_suffix_decide_names(folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert [j.target.name for j in files.plan([folder], out, overwrite=False, format="jpeg")] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
    ]
    (job,) = files.plan([folder / "b.png"], out + "/", overwrite=False, suffix=".latent")
    assert job.target == tmp_path / "out" / "b.latent"


@pytest.mark.parametrize(
    ("out", "folder_"), [("results", True), ("v1.2/", True), ("x.png", False), (".", True)]
)
def test_what_names_a_folder(out: str, folder_: bool) -> None:
    assert files.is_folder(out) is folder_


def test_an_input_is_not_written_over(folder: Path) -> None:
    with pytest.raises(BadArgument, match="is an input; choose another place, or add --overwrite"):
        files.plan([folder], str(folder), overwrite=False)
    detour = folder / "nested" / ".." / "b.png"
    with pytest.raises(BadArgument, match="--overwrite"):
        files.plan([folder / "b.png"], str(detour), overwrite=False)
    assert len(files.plan([folder / "b.png"], str(detour), overwrite=True)) == 1


def test_two_answers_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    twin = tmp_path / "b.png"
    twin.write_bytes(b"x")
    with pytest.raises(BadArgument, match="would both be written"):
        files.plan([folder / "b.png", twin], str(tmp_path / "out"), overwrite=False)


def test_the_same_file_twice_is_one_job(folder: Path, tmp_path: Path) -> None:
    jobs = files.plan([folder / "b.png", folder / "b.png"], str(tmp_path / "o.png"), overwrite=True)
    assert len(jobs) == 1


@pytest.mark.parametrize(
    ("inputs", "out", "kwargs", "says"),
    [
        (["missing.png"], "o.png", {}, "IN: there is no file or folder"),
        (["b.png"], "o.gif", {}, "must end in .png, .jpg, .jpeg or .webp"),
        (["b.png", "c.bmp"], "a.JPG", {}, "is a file; several inputs need a folder"),
        (["b.png"], "o.png", {"format": "jpeg"}, "--format: is jpeg"),
        (["b.png"], "o.jpg", {"format": "png", "png_only": True}, "not for lossy formats"),
        (["nested/empty"], "o", {}, "there are no pictures in the folder"),
    ],
)
def test_mistakes(
    folder: Path, inputs: list[str], out: str, kwargs: dict[str, object], says: str
) -> None:
    (folder / "nested" / "empty").mkdir()
    with pytest.raises(BadArgument) as caught:
        files.plan(
            [folder / name for name in inputs],
            str(folder / out),
            overwrite=False,
            **kwargs,  # type: ignore[arg-type]
        )
    assert says in str(caught.value)


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "a.png"
    files.write(target, b"one")
    assert target.read_bytes() == b"one"

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        files.write(target, b"two")
    assert target.read_bytes() == b"one"
    assert list(target.parent.iterdir()) == [target]
