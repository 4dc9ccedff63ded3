"""The command `velatura-server`. Exit codes: 0 after a drain, 1 when starting fails, 2 for bad
settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

import typer

from velatura.server import __version__
from velatura.server.freed_memory import keep_freed_memory

app = typer.Typer(
    help="Serve image editing and style transfer over gRPC.",
    no_args_is_help=True,
    add_completion=False,
)

FAILED, BAD_SETTINGS = 1, 2


@app.callback()
def _root() -> None:
    keep_freed_memory()  # for `tune` as well: it measures what `serve` will do


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,  # the settings print their own, with every flag
)
def serve(context: typer.Context) -> None:
    """Serve until SIGTERM. `serve --help` lists every setting."""
    from velatura.server import settings as all_settings

    try:
        chosen = all_settings.load(context.args)
    except all_settings.BadSettings as error:
        _quit(str(error), BAD_SETTINGS)
    from velatura.server.observability import logging

    logging.configure(chosen.log_level, chosen.log_format)
    from velatura.server.app import App, StartError
    from velatura.server.engine.bundle import Bundle
    from velatura.server.engine.errors import BundleError, EngineError

    try:
        bundle = Bundle.load(chosen.bundle)
    except BundleError as error:
        _quit(f"bundle (--bundle, VELATURA_BUNDLE): {error}", BAD_SETTINGS)
    except EngineError as error:
        _quit(str(error), FAILED)

    async def main() -> None:
        await App(chosen, bundle).run()

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(main())
    except (StartError, EngineError) as error:
        _quit(str(error), FAILED)


@app.command()
def check(bundle: Annotated[str, typer.Argument(help="Directory with manifest.json.")]) -> None:
    """Check a bundle: hashes, shapes, graphs, directions."""
    from velatura.server.engine.bundle import Bundle
    from velatura.server.engine.errors import EngineError

    try:
        loaded = Bundle.load(bundle)
    except EngineError as error:
        _quit(str(error), FAILED)
    manifest = loaded.manifest
    typer.echo(f"{manifest.name} {manifest.version}: {len(manifest.models)} networks, good.")


@app.command()
def tune(
    bundle: Annotated[
        Path | None,
        typer.Option(help="Directory with manifest.json; else the embedded one."),
    ] = None,
    output: Annotated[Path, typer.Option(help="TOML file to write the settings to.")] = Path(
        "velatura.toml"
    ),
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Time for each network and number of callers.")
    ] = 1.0,
    callers: Annotated[str, typer.Option(help="Numbers of callers to try.")] = "1,8,32",
    batches: Annotated[str, typer.Option(help="Largest batches to try.")] = "4,8,16",
    model: Annotated[
        list[str] | None,
        typer.Option(help="A network to measure, again for more; else all."),
    ] = None,
) -> None:
    """Find the instances, threads and batches that suit this machine, and write them for serve."""
    from rich.console import Console

    from velatura.server import settings as all_settings
    from velatura.server import tuning
    from velatura.server.engine.bundle import Bundle
    from velatura.server.engine.errors import EngineError
    from velatura.server.engine_settings import engine_options

    try:
        chosen = all_settings.load(["--bundle", str(bundle)] if bundle else [])
        plan = tuning.Plan(
            seconds,
            all_settings.sizes_of(callers),
            all_settings.sizes_of(batches),
            tuple(model or ()),
        )
        loaded = Bundle.load(chosen.bundle)
        for name in plan.models:
            loaded.model(name)
        tuning.run(loaded, engine_options(chosen), plan, output, Console())
    except (all_settings.BadSettings, ValueError) as error:
        _quit(str(error), BAD_SETTINGS)
    except (EngineError, OSError) as error:
        _quit(str(error), FAILED)


@app.command()
def version() -> None:
    """Print the server's version."""
    typer.echo(__version__)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed (not on Windows)."""
    try:
        import uvloop
    except ImportError:
        return None
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)


def _quit(message: str, code: int) -> None:
    typer.echo(f"velatura-server: {message}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
