"""Which files are read, and where each answer is written.

Folders are read flat. One input goes to a file or into a folder; several go into a folder, each
under its own name. Writing is atomic, and an input is never written over unless that was asked for.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from velatura.client.cli.arguments import PICTURE_SUFFIXES, BadArgument
from velatura.client.images import Format, format_of_suffix

LATENT_SUFFIX = ".latent"
_SUFFIX_OF: dict[Format, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


@dataclass(frozen=True)
class Job:
    """One file to read and one to write; `format` is None for the input's own."""

    source: Path
    target: Path
    format: Format | None


def plan(
    inputs: Sequence[Path],
    out_name: str,
    *,
    overwrite: bool,
    format: Format | None = None,
    suffix: str | None = None,
    png_only: bool = False,
    allow_latents: bool = False,
) -> list[Job]:
    """The jobs for what was typed.

    Args:
        inputs: Files and folders.
        out_name: A file for one input, a folder otherwise; ending in "/" makes it a folder.
        overwrite: Allow targets that are inputs.
        format: Format of the answers; from `out_name`, or the input's own, when None.
        suffix: Fixed ending of the targets, for answers that are not images.
        png_only: The answers are PNG whatever happens; refuse another name.
        allow_latents: Take `.latent` files too.

    Raises:
        BadArgument: when an input is missing, or two answers would have the same name.
    """
    sources = _sources(inputs, allow_latents)
    into_folder = is_folder(out_name) or len(sources) > 1 or any(p.is_dir() for p in inputs)
    out = Path(out_name)
    if into_folder and out.exists() and not out.is_dir():
        raise BadArgument("--out", f"{out} is a file; several inputs need a folder")
    if not into_folder and suffix is None and format_of_suffix(out) is None:
        raise BadArgument("--out", f"{out} must end in .png, .jpg, .jpeg or .webp")
    if not into_folder and png_only and format_of_suffix(out) != "png":
        raise BadArgument("--out", f"{out} must end in .png: a label map is not for lossy formats")
    jobs = []
    for source in sources:
        if into_folder:
            target, kind = out / _name(source, format, suffix), format
        else:
            target, kind = out, format_of_suffix(out)
            if format is not None and suffix is None and format != kind:
                raise BadArgument("--format", f"is {format}, but {out} says otherwise")
        jobs.append(Job(source, target, kind))
    _check_targets(jobs, overwrite)
    return jobs


def is_folder(out_name: str) -> bool:
    """Whether this names a folder: it is one, or ends in "/", or has no ending (`-o results`)."""
    out = Path(out_name)
    return out.is_dir() or out_name.endswith(("/", os.sep)) or not (out.exists() or out.suffix)


def seed_name(seed: int, format: Format) -> str:
    """`seed-0007.png`."""
    return f"seed-{seed:04d}{_SUFFIX_OF[format]}"


def beside(target: Path, word: str, suffix: str) -> Path:
    """`face.png` → `face.overlay.png`: a second answer next to the first."""
    return target.with_name(f"{target.stem}.{word}{suffix}")


def write(target: Path, data: bytes) -> None:
    """Write through a temporary file, so that a crash leaves no half of an image."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sources(inputs: Sequence[Path], allow_latents: bool) -> list[Path]:
    wanted = PICTURE_SUFFIXES | ({LATENT_SUFFIX} if allow_latents else set())
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            here = sorted(
                p
                for p in path.iterdir()
                if p.is_file() and p.suffix.lower() in wanted and not p.name.startswith(".")
            )
            if not here:
                raise BadArgument("IN", f"there are no pictures in the folder {path}")
            found += here
        elif path.is_file():
            found.append(path)
        else:
            raise BadArgument("IN", f"there is no file or folder {path}")
    return list(dict.fromkeys(found))


def _name(source: Path, format: Format | None, suffix: str | None) -> str:
    if suffix is not None:
        return source.stem + suffix
    if format is not None:
        return source.stem + _SUFFIX_OF[format]
    # Endings that the server does not write (.bmp, .latent) become PNG, as the answer does.
    return source.name if format_of_suffix(source) else f"{source.stem}.png"


def _check_targets(jobs: Sequence[Job], overwrite: bool) -> None:
    inputs = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in taken:
            raise BadArgument(
                "--out", f"{taken[target]} and {job.source} would both be written to {job.target}"
            )
        taken[target] = job.source
        if target in inputs and not overwrite:
            raise BadArgument(
                "--out", f"{job.target} is an input; choose another place, or add --overwrite"
            )
