"""Options that several commands share: what to read, where to write, which part to touch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

Inputs: TypeAlias = Annotated[
    list[Path], typer.Argument(metavar="IN...", help="Pictures, or folders of them (not nested).")
]
Out: TypeAlias = Annotated[
    str,
    typer.Option("--out", "-o", metavar="OUT", help="File for one input; folder for several."),
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Allow writing over an input.")
]
Jobs: TypeAlias = Annotated[
    int, typer.Option("--jobs", "-j", min=1, max=64, help="Requests in flight at once.")
]
OutFormat: TypeAlias = Annotated[
    Literal["png", "jpeg", "webp"] | None,
    typer.Option("--format", help="Format of the results; OUT's or the input's own if left out."),
]
Quality: TypeAlias = Annotated[
    int | None, typer.Option(min=1, max=100, help="Quality of JPEG and WebP.")
]
Edits: TypeAlias = Annotated[
    list[str],
    typer.Option("--edit", metavar="NAME=STRENGTH", help="Such as smile=1.0; repeatable."),
]
Offsets: TypeAlias = Annotated[
    list[str],
    typer.Option("--offset", metavar="A:B=NUMBER", help="Add to W+ layers, such as 8:12=0.5."),
]
References: TypeAlias = Annotated[
    list[str],
    typer.Option(
        "--reference", metavar="FILE[:STRENGTH]", help="Take latents from another picture."
    ),
]
LayerSpan: TypeAlias = Annotated[
    str | None,
    typer.Option("--layers", metavar="A:B", help="W+ layers that edits and references move."),
]
Classes: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--region", metavar="A,B,-C", help="Classes to touch, such as mouth,eyes; -C takes C away."
    ),
]
Masks: TypeAlias = Annotated[
    list[Path],
    typer.Option("--mask", metavar="FILE", help="Mask of the picture's size; white is inside."),
]
Boxes: TypeAlias = Annotated[
    list[str],
    typer.Option("--box", metavar="X,Y,W,H", help="Rectangle in pixels."),
]
Grow: TypeAlias = Annotated[
    int,
    typer.Option(min=-512, max=512, help="Widen the region by pixels (shrink: negative)."),
]
Feather: TypeAlias = Annotated[
    int,
    typer.Option(min=0, max=512, help="Fade in over pixels, inward."),
]
Invert: TypeAlias = Annotated[
    bool,
    typer.Option("--invert", help="Everything but the region."),
]
