"""`velatura-train`: the avatar networks from nothing to weights, one command a step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from velatura.training.biggan.command import biggan
from velatura.training.classifier.command import classifier
from velatura.training.command_settings import ConfiguredTyper
from velatura.training.evaluation.command import evaluate
from velatura.training.gan.command import gan

app = ConfiguredTyper(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Train, measure and assemble the avatar networks. Runs resume from their own folder.",
)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; an old run resumes.")]
Minutes = Annotated[float, typer.Option(help="Time budget; 0 for none.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 for all.")]
Compile = Annotated[bool, typer.Option(help="Compile the networks with torch.compile.")]
Bf16 = Annotated[bool, typer.Option(help="bfloat16 arithmetic; quick on CPUs with AMX.")]
Run = Annotated[Path | None, typer.Option(help="A run's folder; without it, nothing new.")]
WEIGHTS = Path("training/weights")


app.command()(classifier)
app.command(keeps_settings=False)(evaluate)
app.command()(biggan)
app.command()(gan)


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count or os.cpu_count() or 1)


@app.command()
def generator(
    out: Out = Path("runs/generator"),
    resolution: Annotated[int, typer.Option(help="Height and width: 64 first, then 128.")] = 64,
    steps: int = 6000,
    minutes: Minutes = 0,
    learning_rate: float = 2e-2,
    start_from: Annotated[Path | None, typer.Option(help="Run of a lower resolution.")] = None,
    threads: Threads = 0,
    compile: Compile = True,
    bf16: Bf16 = False,
) -> None:
    """Teach the generator from labelled renders."""
    _use_threads(threads)
    from velatura.training.generator.pretrain import PretrainSettings, pretrain
    from velatura.training.runs.loop import Schedule

    settings = PretrainSettings(resolution, learning_rate=learning_rate, compile=compile, bf16=bf16)
    schedule = Schedule(steps, minutes, final_rate=0.05)
    psnr = pretrain(settings, schedule, out, _checkpoint(start_from) if start_from else None)
    typer.echo(f"held-out PSNR from labels: {psnr:.2f} dB")


@app.command()
def encoder(
    out: Out = Path("runs/encoder"),
    steps: int = 4000,
    minutes: Minutes = 0,
    learning_rate: float = 1e-3,
    generator_learning_rate: float = 4e-3,
    generator_run: Annotated[
        Path | None, typer.Option(help="Generator to decode with: the second stage.")
    ] = None,
    encoder_run: Annotated[
        Path | None, typer.Option(help="First stage's run to go on from.")
    ] = None,
    threads: Threads = 0,
    compile: Compile = True,
    bf16: Bf16 = False,
) -> None:
    """Teach the encoder: latents alone first, then images, together with the generator."""
    _use_threads(threads)
    from velatura.training.generator.encode import EncodeSettings, train_images, train_latents
    from velatura.training.runs.loop import Schedule

    settings = EncodeSettings(
        learning_rate=learning_rate,
        generator_learning_rate=generator_learning_rate,
        compile=compile,
        bf16=bf16,
    )
    schedule = Schedule(steps, minutes, final_rate=0.05)
    if generator_run is None:
        accuracy = train_latents(settings, schedule, out)
        typer.echo(f"held-out label accuracy: {accuracy:.4f}")
        return
    if encoder_run is None:
        raise typer.BadParameter("--encoder-run: the second stage goes on from a first one")
    psnr = train_images(
        settings, schedule, out, _checkpoint(generator_run), _checkpoint(encoder_run)
    )
    typer.echo(f"held-out PSNR of encode and generate: {psnr:.2f} dB")


@app.command()
def adversarial(
    joint_run: Annotated[Path, typer.Option(help="Run of encoder and generator to go on from.")],
    out: Out = Path("runs/adversarial"),
    steps: int = 2000,
    minutes: Minutes = 0,
    learning_rate: float = 2e-4,
    generator_learning_rate: float = 3e-3,
    adversarial_share: Annotated[
        float, typer.Option(help="Size of the discriminator's gradient beside the picture's.")
    ] = 0.4,
    threads: Threads = 0,
    compile: Compile = True,
    bf16: Bf16 = False,
) -> None:
    """Sharpen encoder and generator, together, against a discriminator."""
    _use_threads(threads)
    from velatura.training.generator.adversarial import AdversarialSettings, train_adversarially
    from velatura.training.runs.loop import Schedule

    settings = AdversarialSettings(
        learning_rate=learning_rate,
        generator_learning_rate=generator_learning_rate,
        adversarial_share=adversarial_share,
        compile=compile,
        bf16=bf16,
    )
    schedule = Schedule(steps, minutes, final_rate=0.05)
    psnr = train_adversarially(settings, schedule, out, _checkpoint(joint_run))
    typer.echo(f"held-out PSNR of encode and generate: {psnr:.2f} dB")


@app.command()
def mapping(out: Out = Path("runs/mapping"), threads: Threads = 0) -> None:
    """Fit the mapping network, which samples avatars from z; needs no other run."""
    _use_threads(threads)
    from velatura.training.generator.mapping import MappingSettings, fit_mapping

    accuracy = fit_mapping(MappingSettings(), out)
    typer.echo(f"attributes whose right option leads: {accuracy:.4f}")


@app.command()
def segmenter(
    out: Out = Path("runs/segmenter"),
    steps: int = 3000,
    minutes: Minutes = 0,
    count: Annotated[int, typer.Option(help="Avatars to train on.")] = 6000,
    folder: Annotated[
        Path | None, typer.Option(help="Own data: images/, masks/ and classes.txt.")
    ] = None,
    architecture: Annotated[
        str, typer.Option(help="deeplabv3plus or unet_scse.")
    ] = "deeplabv3plus",
    backbone: Annotated[str, typer.Option(help="Encoder of segmentation_models_pytorch.")] = (
        "tu-mobilenetv3_small_100"
    ),
    learning_rate: float = 2e-3,
    lovasz_from: Annotated[
        float, typer.Option(help="How far into the run, 0 to 1, Lovász takes over from Dice.")
    ] = 0.5,
    start_from: Annotated[
        Path | None, typer.Option(help="Weights of the same shape to go on from.")
    ] = None,
    bf16: Bf16 = False,
    threads: Threads = 0,
) -> None:
    """Train a segmenter on avatars or on a folder of labelled images."""
    _use_threads(threads)
    from velatura.training.segmenter.run import SegmenterRun, run_segmenter

    figures = run_segmenter(
        SegmenterRun(
            out,
            steps,
            minutes,
            count,
            folder,
            architecture,
            backbone,
            learning_rate,
            lovasz_from,
            bf16,
            start_from,
        )
    )
    typer.echo(f"mIoU {figures['mIoU']:.4f}")


@app.command(keeps_settings=False)
def assemble(
    encoder_run: Run = None,
    mapping_run: Run = None,
    segmenter_run: Run = None,
    unet_run: Run = None,
    class_generator_run: Run = None,
    classifier_run: Run = None,
    weights: Annotated[Path, typer.Option(help="Where the bundle's weights go.")] = WEIGHTS,
) -> None:
    """Collect trained runs into weights; the generator comes with the encoder's and mapping's."""
    from velatura.training.assemble import Runs, assemble_weights

    runs = Runs(
        encoder=_checkpoint(encoder_run) if encoder_run else None,
        mapping=mapping_run,
        segmenter=segmenter_run,
        unet=unet_run,
        class_generator=class_generator_run,
        classifier=classifier_run,
    )
    assemble_weights(runs, weights)


def _checkpoint(run: Path) -> Path:
    """A run's newest checkpoint, or the file itself."""
    from velatura.training.runs.checkpoint import latest_checkpoint

    found = latest_checkpoint(run) if run.is_dir() else run if run.is_file() else None
    if found is None:
        raise typer.BadParameter(f"{run}: no checkpoint there; train it first")
    return found
