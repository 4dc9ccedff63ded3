"""The `velatura-export` command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from velatura.export.errors import ExportError
from velatura.export.formats import Format
from velatura.v1 import bundle_pb2

app = typer.Typer(
    help="Trace networks to ONNX, check them, and write the bundle that velatura-server loads.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_STEPS = ("tracing", "optimising", "checking", "done")

Bundle = Annotated[Path, typer.Argument(help="Folder of a bundle.")]


@app.command()
def bundle(
    weights: Annotated[
        Path, typer.Option("--weights", "-w", help="Folder with the avatar-* weights.")
    ] = Path("training/weights"),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write; models for the avatars.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Name of the bundle, and of an own generator.", show_default=False)
    ] = "",
    generator: Annotated[
        Path | None,
        typer.Option("--generator", "-g", help="Your own NAME.safetensors, instead of avatars."),
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Its W+ encoder, .safetensors: to edit images.")
    ] = None,
    segmenter: Annotated[
        Path | None, typer.Option(help="A segmenter, .safetensors: for regions by class.")
    ] = None,
    edits: Annotated[
        Path | None, typer.Option("--directions", help="JSON of `velatura-export directions`.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Names of a class-conditional one's classes, one a line.")
    ] = None,
    styles: Annotated[
        bool, typer.Option("--styles", help="Add the style networks to an own generator.")
    ] = False,
    license: Annotated[str, typer.Option(help="Licence of your weights, for the cards.")] = "",
    data: Annotated[str, typer.Option(help="What they were trained on, for the cards.")] = "",
) -> None:
    """Export avatars and styles, or your own generator; all checks pass, or nothing is replaced."""
    from velatura.export.bundle import write_bundle
    from velatura.export.contents import avatar_contents, own_contents
    from velatura.export.own_bundle import OwnFiles, bundle_name

    console = Console()
    own = {"encoder": encoder, "segmenter": segmenter, "directions": edits, "classes": classes}
    try:
        if generator is None:
            _refuse_without_generator({**own, "styles": styles, "license": license, "data": data})
            target, called = out or Path("models"), name or "velatura"
            contents = avatar_contents(weights)
        else:
            if out is None:
                raise ExportError("--out: give the folder to write your bundle to")
            target, called = out, bundle_name(name, generator)
            contents = own_contents(
                OwnFiles(generator, **own),
                called,
                license=license,
                training_data=data,
                styles=styles,
            )
        with _progress(console) as bar:
            task = bar.add_task("loading", total=len(contents.specs) * len(_STEPS))

            def advance(network: str, step: str) -> None:
                bar.update(task, advance=1, description=f"{network}: {step}")

            manifest = write_bundle(
                target,
                name=called,
                specs=contents.specs,
                generators=contents.generators,
                styles=contents.styles,
                default_segmenter=contents.default_segmenter,
                size_limit=contents.size_limit,
                progress=advance,
            )
    except ModuleNotFoundError as error:
        _fail(console, f"{error}; install velatura-export[style] for the style networks")
    except ExportError as error:
        _fail(console, str(error))
    console.print(_table(target, manifest))


def _refuse_without_generator(options: Mapping[str, object]) -> None:
    """An encoder alone would otherwise be left out silently."""
    given = [f"--{name}" for name, value in options.items() if value]
    if given:
        raise ExportError(
            f"{', '.join(given)}: only with --generator FILE.safetensors; without it the avatars "
            "and styles of --weights are exported"
        )


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A .pkl or .pt file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="NAME.safetensors to write.")],
    checkpoint_format: Annotated[
        Format | None, typer.Option("--format", help="Instead of what the content looks like.")
    ] = None,
    averaged: Annotated[
        bool, typer.Option(help="The averaged generator (G_ema), or the one as trained (G).")
    ] = True,
) -> None:
    """Turn a StyleGAN2 checkpoint into our weights, without running anything that it holds."""
    from velatura.export.convert import convert as convert_checkpoint

    console = Console()
    try:
        config = convert_checkpoint(checkpoint, out, checkpoint_format, averaged=averaged).config
    except ExportError as error:
        _fail(console, str(error))
    classes = f", {config.classes} classes" if config.classes else ""
    console.print(
        f"{out}: {config.resolution} px, W+ of {config.num_ws} × {config.w_dim}, "
        f"{config.mapping_layers} mapping layers{classes}",
        soft_wrap=True,
    )


@app.command()
def directions(
    source: Annotated[
        str,
        typer.Argument(help="sefa, ganspace, or a file: .npy (InterFaceGAN), .npz (GANSpace), .pt"),
    ],
    generator: Annotated[Path, typer.Option("--generator", "-g", help="Its NAME.safetensors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")],
    layers: Annotated[str, typer.Option(help="Layers of W+: coarse, middle, fine, or 4:8.")] = "",
    count: Annotated[int, typer.Option(help="SeFa and GANSpace: how many.", min=1)] = 5,
    space: Annotated[str, typer.Option(help="InterFaceGAN: space of the boundary.")] = "W",
) -> None:
    """Import edit directions, or compute them by SeFa or GANSpace, for one generator."""
    from velatura.export.directions.registry import write_directions

    console = Console()
    try:
        names = write_directions(source, generator, out, layers=layers, count=count, space=space)
    except ExportError as error:
        _fail(console, str(error))
    console.print(f"{out}: {', '.join(names)}", soft_wrap=True)


@app.command()
def inspect(folder: Bundle = Path("models")) -> None:
    """Show every network: tensors, cost, size and how closely it was verified."""
    from velatura.export.bundle import read_manifest

    console = Console()
    try:
        manifest = read_manifest(folder)
    except ExportError as error:
        _fail(console, str(error))
    console.print(_table(folder, manifest))


@app.command()
def verify(folder: Bundle = Path("models")) -> None:
    """Check hashes, load every graph in onnxruntime and run it once; exit code 1 on any problem."""
    from velatura.export.audit import audit

    console = Console()
    problems = 0
    try:
        for name, problem in audit(folder):
            problems += bool(problem)
            console.print(f"[red]✗ {name}[/]: {problem}" if problem else f"[green]✓[/] {name}")
    except ExportError as error:
        _fail(console, str(error))
    if problems:
        raise typer.Exit(1)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _table(folder: Path, manifest: bundle_pb2.BundleManifest) -> Table:
    table = Table(title=f"{manifest.name}: {len(manifest.models)} networks")
    table.add_column("model", no_wrap=True)
    for column in ("inputs", "outputs"):
        table.add_column(column, overflow="fold")
    for column in ("params", "GFLOP", "MB", "max error"):
        table.add_column(column, justify="right", no_wrap=True)
    total = 0
    for model in manifest.models:
        path = folder / model.file
        size = path.stat().st_size if path.is_file() else 0
        total += size
        against_torch = [v for v in model.verifications if v.reference.startswith("torch")]
        worst = max((v.max_abs_error for v in against_torch), default=float("nan"))
        table.add_row(
            model.name,
            "\n".join(map(_tensor, model.inputs)),
            "\n".join(map(_tensor, model.outputs)),
            f"{model.parameters:,}",
            f"{model.flops / 1e9:.3f}",
            f"{size / 1e6:.2f}",
            f"{worst:.1e}",
        )
    table.caption = f"{total / 1e6:.1f} MB of graphs; max error is against torch"
    return table


def _tensor(spec: bundle_pb2.TensorSpec) -> str:
    return f"{spec.name} {'×'.join('?' if e == -1 else str(e) for e in spec.shape)}"


def _fail(console: Console, message: str) -> NoReturn:
    console.print(f"[red]error:[/] {message}", soft_wrap=True, highlight=False)
    raise typer.Exit(2)
