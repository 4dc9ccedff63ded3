"""Foreign generator checkpoints → our weights: recognises the format and picks the loader."""

from __future__ import annotations

from pathlib import Path

from velatura.export.checkpoints import inversion, native, rosinality, stylegan2_ada
from velatura.export.checkpoints.pickle_machine import Limits
from velatura.export.checkpoints.safe_pickle import map_file
from velatura.export.checkpoints.torch_archive import is_archive, load_archive
from velatura.export.errors import CheckpointError
from velatura.export.formats import Format
from velatura.export.networks.stylegan2 import Generator

_PROTOCOL = 0x80  # the first byte of every pickle of protocol 2 and later


def recognise(path: Path) -> Format:
    """From the content, whatever the file is called. Raises CheckpointError when unknown."""
    data = map_file(path, Limits())
    if is_archive(data):
        return Format.INVERSION if inversion.is_inversion(load_archive(path)) else Format.ROSINALITY
    if data[0] == _PROTOCOL:
        return Format.STYLEGAN2_ADA
    raise CheckpointError(
        f"{path}: neither a pickle nor an archive of torch.save; supported are {', '.join(Format)}"
    )


def load_generator(
    path: Path, checkpoint_format: Format | None = None, *, averaged: bool = True
) -> Generator:
    """The generator of a checkpoint; `averaged` picks the one that is meant for use.

    Raises CheckpointError as the format's loader does.
    """
    chosen = checkpoint_format or recognise(path)
    if chosen is Format.STYLEGAN2_ADA:
        return stylegan2_ada.load_generator(path, "G_ema" if averaged else "G")
    if chosen is Format.INVERSION:
        return inversion.load_decoder(path)
    return rosinality.load_generator(path, "g_ema" if averaged else "g")


def is_own(path: Path) -> bool:
    """Whether it is a file of ours, `NAME.safetensors`; all others are recognised by content."""
    return path.suffix == ".safetensors"


def open_generator(path: Path) -> Generator:
    """Our own weights, or a checkpoint of any supported format. Raises CheckpointError."""
    return native.load_generator(path) if is_own(path) else load_generator(path)


def convert(
    path: Path, out: Path, checkpoint_format: Format | None = None, *, averaged: bool = True
) -> Generator:
    """Write `out` (`.safetensors`) and its `.json` for `native.load_generator`.

    Nothing is written unless the whole checkpoint fits.
    """
    if not is_own(out):
        raise CheckpointError(f"{out}: the output's name must end in .safetensors")
    generator = load_generator(path, checkpoint_format, averaged=averaged)
    native.save_weights(out, generator, generator.config)
    return generator
