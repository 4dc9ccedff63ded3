"""The `velatura-export` command."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from velatura.export.errors import ExportError
from velatura.export.formats import Format, Layout, Precision, Provider
from velatura.export.graph_command import graph
from velatura.export.inspect_command import compare, inspect
from velatura.export.quantize_command import quantize
from velatura.export.triton_command import triton
from velatura.v1 import bundle_pb2

if TYPE_CHECKING:
    from velatura.export.contents import Contents

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
        typer.Option("--generator", "-g", help="Your generator (below), instead of avatars."),
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Its W+ encoder (below): to edit images.")
    ] = None,
    iterations: Annotated[int, typer.Option(help="Passes of a ReStyle encoder.")] = 5,
    segmenter: Annotated[
        Path | None, typer.Option(help="A segmenter (below): for regions by class.")
    ] = None,
    segmenter_classes: Annotated[
        Path | None, typer.Option(help="Names of another project's classes, one a line.")
    ] = None,
    segmenter_size: Annotated[
        int, typer.Option(help="Its height and width in px; 256 without.", show_default=False)
    ] = 0,
    edits: Annotated[
        Path | None, typer.Option("--directions", help="JSON of `velatura-export directions`.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Names of a class-conditional one's classes, one a line.")
    ] = None,
    class_generator: Annotated[
        Path | None, typer.Option(help="A BigGAN (below), beside a generator or instead.")
    ] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="Names of its classes, one a line; numbers without.")
    ] = None,
    truncation: Annotated[
        float, typer.Option(help="psi to take pytorch-pretrained-BigGAN's statistics for.")
    ] = 0.7,
    style_encoder: Annotated[
        Path | None, typer.Option(help="AdaIN: vgg_normalised.pth of pytorch-AdaIN.")
    ] = None,
    style_decoder: Annotated[Path | None, typer.Option(help="AdaIN: its decoder.pth.")] = None,
    style_networks: Annotated[
        Path | None, typer.Option(help="Ghiasi's predictor and transformer in one torch file.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="torchvision's VGG or ResNet, for raw feature maps.")
    ] = None,
    network: Annotated[
        list[Path] | None, typer.Option(help="Manifest (TOML) of an ONNX file; may be repeated.")
    ] = None,
    styles: Annotated[
        bool, typer.Option("--styles", help="Add the style networks to networks of your own.")
    ] = False,
    layout: Annotated[
        Layout, typer.Option(help="For velatura-server, or a repository of NVIDIA's Triton.")
    ] = Layout.BUNDLE,
    license: Annotated[str, typer.Option(help="Licence of your weights, for the cards.")] = "",
    data: Annotated[str, typer.Option(help="What they were trained on, for the cards.")] = "",
    precision: Annotated[
        Precision, typer.Option(help="What the generator's synthesis computes in.")
    ] = Precision.FLOAT32,
    provider: Annotated[
        Provider, typer.Option(help="What is to run the networks; any of them can, if slower.")
    ] = Provider.CPU,
    latents: Annotated[
        int, typer.Option(help="Random latents that float16 must not overflow on.", min=1)
    ] = 1000,
) -> None:
    """Export avatars and styles, or your own generator; all checks pass, or nothing is replaced.

    Generators: our NAME.safetensors, a StyleGAN2-ADA .pkl, a rosinality .pt, the decoder of a pSp,
    e4e or ReStyle .pt. Encoders: our NAME.safetensors, pSp, e4e and ReStyle .pt. Segmenters: our
    NAME.safetensors, BiSeNet, milesial's U-Net, DeepLabv3 of torchvision, DeepLab of VainF (.pth),
    and segmentation_models_pytorch (a folder of save_pretrained, or NAME.pth with NAME.json).
    Class generators: our NAME.safetensors, BigGAN-PyTorch's G_ema.pth, pytorch-pretrained-BigGAN's
    pytorch_model.bin.
    """
    from velatura.export.bundle import write_bundle
    from velatura.export.contents import avatar_contents, own_contents
    from velatura.export.extra_networks import ExtraFiles
    from velatura.export.own_bundle import OwnFiles, bundle_name
    from velatura.export.triton_layout import require_replaceable, write_triton

    console = Console()
    own = {
        "encoder": encoder,
        "segmenter": segmenter,
        "segmenter_classes": segmenter_classes,
        "directions": edits,
        "classes": classes,
    }
    extras = ExtraFiles(
        class_generator,
        class_names,
        truncation,
        style_encoder,
        style_decoder,
        style_networks,
        features,
        tuple(network or ()),
    )
    try:
        first = generator or extras.first
        if generator is None:
            _refuse_without_generator({**own, "segmenter_size": segmenter_size})
        if first is None:
            _refuse_for_avatars(
                {
                    "class_names": class_names,
                    "style_decoder": style_decoder,
                    "styles": styles,
                    "license": license,
                    "data": data,
                }
            )
            target, called = out or Path("models"), name or "velatura"
            contents = avatar_contents(weights)
        else:
            if out is None:
                raise ExportError("--out: give the folder to write your bundle to")
            target, called = out, bundle_name(name, first)
            contents = own_contents(
                OwnFiles(
                    generator,
                    **own,
                    iterations=iterations,
                    segmenter_size=segmenter_size,
                    provider=provider,
                )
                if generator
                else None,
                called,
                license=license,
                training_data=data,
                styles=styles,
                extras=extras,
            )
        if precision is Precision.FLOAT16:
            contents = _in_float16(console, contents, latents)
        if layout is Layout.TRITON:
            require_replaceable(target)
        with _progress(console) as bar, tempfile.TemporaryDirectory() as scratch:
            folder = target if layout is Layout.BUNDLE else Path(scratch) / "bundle"
            task = bar.add_task("loading", total=len(contents.specs) * len(_STEPS))

            def advance(network: str, step: str) -> None:
                bar.update(task, advance=1, description=f"{network}: {step}")

            manifest = write_bundle(
                folder,
                name=called,
                specs=contents.specs,
                generators=contents.generators,
                styles=contents.styles,
                default_segmenter=contents.default_segmenter,
                size_limit=contents.size_limit,
                progress=advance,
            )
            if layout is Layout.TRITON:
                write_triton(folder, target)
            table = _table(folder, manifest)
    except ModuleNotFoundError as error:
        _fail(console, f"{error}; install velatura-export[style] for the style networks")
    except ExportError as error:
        _fail(console, str(error))
    console.print(table)


def _refuse_without_generator(options: Mapping[str, object]) -> None:
    """An encoder alone would otherwise be left out silently."""
    given = _given(options)
    if given:
        raise ExportError(
            f"{given}: only with --generator FILE; without it the avatars and styles of --weights "
            "are exported"
        )


def _refuse_for_avatars(options: Mapping[str, object]) -> None:
    """They describe or add to networks of one's own, of which there are none."""
    given = _given(options)
    if given:
        raise ExportError(
            f"{given}: only with --generator FILE or other networks of your own; without any the "
            "avatars and styles of --weights are exported"
        )


def _given(options: Mapping[str, object]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name, value in options.items() if value)


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


app.command()(graph)
app.command()(triton)
app.command()(inspect)
app.command()(compare)
app.command()(quantize)


@app.command()
def directions(
    source: Annotated[
        str,
        typer.Argument(help="sefa, ganspace, or a file: .npy (InterFaceGAN), .npz (GANSpace), .pt"),
    ],
    generator: Annotated[
        Path, typer.Option("--generator", "-g", help="Any generator that `bundle` takes.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")],
    layers: Annotated[str, typer.Option(help="Layers of W+: coarse, middle, fine, or 4:8.")] = "",
    count: Annotated[int, typer.Option(help="SeFa and GANSpace: how many.", min=1)] = 5,
    space: Annotated[
        str, typer.Option(help="Of a file's direction: W, W+, or S (StyleCLIP's .npy, .npz).")
    ] = "W",
    max_residual: Annotated[
        float, typer.Option(help="S: share of the change that W+ may fail to give.")
    ] = 0.5,
) -> None:
    """Import edit directions, or compute them by SeFa or GANSpace, for one generator."""
    from velatura.export.directions.registry import write_directions

    console = Console()
    try:
        names = write_directions(
            source,
            generator,
            out,
            layers=layers,
            count=count,
            space=space,
            max_residual=max_residual,
        )
    except ExportError as error:
        _fail(console, str(error))
    console.print(f"{out}: {', '.join(names)}", soft_wrap=True)


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


def _in_float16(console: Console, contents: Contents, latents: int) -> Contents:
    """Each generator's synthesis in float16, proven on random latents, which takes a while."""
    from velatura.export.half_checks import synthesis_in_float16

    entries = [entry for entry, _ in contents.generators]
    with _progress(console) as bar:
        task = bar.add_task("float16: random latents", total=latents * len(entries))
        specs = synthesis_in_float16(
            contents.specs, entries, latents, lambda done: bar.update(task, advance=done)
        )
    return replace(contents, specs=specs)


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
