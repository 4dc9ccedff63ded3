"""`velatura-export quantize`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from velatura.export.errors import ExportError
from velatura.export.formats import Quantisation


def quantize(
    folder: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    network: Annotated[str, typer.Option(help="One of its encoders or segmenters.")],
    images: Annotated[
        Path | None, typer.Option(help="Pictures to try it on; else the generator draws some.")
    ] = None,
    method: Annotated[
        Quantisation, typer.Option(help="Ranges from the pictures, or measured at each run.")
    ] = Quantisation.STATIC,
    count: Annotated[int, typer.Option(help="Pictures, at most.", min=2)] = 192,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the bundle with it, if it pays.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="To time each batch for.", min=0)] = 2.0,
) -> None:
    """Try a network in int8: what it loses, what it wins; written only where it pays."""
    from velatura.export.quantize import quantize as quantize_network
    from velatura.export.quantized_bundle import BundleNetworks

    console = Console()
    try:
        networks = BundleNetworks(folder)
        pictures = (
            networks.pictures(network, images, count)
            if images is not None
            else networks.generated(network, count)
        )
        with tempfile.TemporaryDirectory() as scratch:
            graph = Path(scratch) / "int8.onnx"
            done = quantize_network(networks, network, pictures, method, graph, seconds=seconds)
            if out is not None and done.pays:
                networks.write_with(network, graph, done.to_figures(), out)
    except ExportError as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from error
    unit = " dB" if done.measure == "PSNR" else ""
    speeds = ", ".join(f"{factor:.2f} × at batch {batch}" for batch, factor in done.speed.items())
    before, after = (size / 1e6 for size in done.bytes)
    console.print(
        f"{network}, int8 {done.method}: {done.measure} {done.quality:.4g}{unit} against "
        f"float32 on {done.images} pictures; speed {speeds}; {before:.2f} → {after:.2f} MB",
        soft_wrap=True,
        highlight=False,
    )
    verdict = "it pays" if done.pays else "it does not pay: nothing was written"
    console.print(f"{out}: written" if out is not None and done.pays else verdict, soft_wrap=True)
