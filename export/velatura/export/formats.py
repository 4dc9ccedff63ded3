"""Names of the formats, apart from their loaders so that `--help` need not import torch."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """Formats of generator checkpoints."""

    STYLEGAN2_ADA = "stylegan2-ada"
    ROSINALITY = "rosinality"
    INVERSION = "psp"  # pSp, e4e and ReStyle: the decoder of the file
