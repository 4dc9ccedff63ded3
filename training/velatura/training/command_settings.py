"""Settings of commands in TOML files: `--config FILE` reads them, OUT/settings.toml keeps them.

One mechanism for every command of an app, so that no command has code for it. A setting is called
as its option is, without the leading dashes (`learning_rate` or `learning-rate`). The command line
wins over the file, the file over the command's own defaults.
"""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tomli_w
import typer
from pydantic import TypeAdapter, ValidationError

SETTINGS_FILE = "settings.toml"

Function = TypeVar("Function", bound=Callable[..., Any])


class ConfiguredTyper(typer.Typer):
    """A Typer whose every command takes `--config`.

    A command with a parameter `out` also writes the settings that it really runs with to
    OUT/settings.toml before it starts; `keeps_settings=False` leaves that out, for a command whose
    output folder is not a run's.
    """

    def command(
        self, name: str | None = None, *, keeps_settings: bool = True, **options: Any
    ) -> Callable[[Function], Function]:
        """As Typer's; the function itself stays as it is."""
        register = super().command(name, **options)

        def decorate(function: Function) -> Function:
            register(_configured(function, keeps_settings))
            return function

        return decorate


def read_settings(context: typer.Context, path: Path) -> dict[str, Any]:
    """Values of the file by parameter name, for the command of `context`.

    Raises typer.BadParameter that names the file and the key which is unknown or of another type.
    """
    try:
        found = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: not TOML: {error}") from error
    parameters = {key: name for name, key in option_names(context).items()}
    known = {key.replace("-", "_"): value for key, value in found.items()}
    if len(known) < len(found):
        raise typer.BadParameter(f"{path}: a key occurs twice, spelt with '-' and with '_'")
    if unknown := sorted(set(known) - set(parameters)):
        raise typer.BadParameter(
            f"{path}: {context.command_path} has no setting {', '.join(unknown)}; it knows "
            f"{', '.join(sorted(parameters))}"
        )
    return {parameters[key]: value for key, value in known.items()}


def option_names(context: typer.Context) -> dict[str, str]:
    """Parameter name → its key in a file, for everything but `--config` and `--help`."""
    names = {}
    for parameter in context.command.params:
        longest = max(parameter.opts, key=len)
        if parameter.name and parameter.name not in ("config", "help"):
            names[parameter.name] = longest.lstrip("-").replace("-", "_")
    return names


def write_settings(path: Path, command: str, settings: Mapping[str, Any]) -> None:
    """Write `settings` by key; those that are None, TOML has no word for, are left out."""
    kept = {key: _plain(value) for key, value in settings.items() if value is not None}
    head = (
        f"# The settings of this run; repeat it: {command} --config {path.name} --out ELSEWHERE\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(head + tomli_w.dumps(kept))
    partial.replace(path)


def _configured(function: Callable[..., Any], keeps_settings: bool) -> Callable[..., Any]:
    """`function` with two parameters more, in the form in which Typer reads parameters."""
    signature = inspect.signature(function, eval_str=True)
    if "config" in signature.parameters:
        raise TypeError(f"{function.__name__}: --config is every command's; name it otherwise")

    def load(context: typer.Context, config: Path | None) -> Path | None:
        if config is not None and not context.resilient_parsing:
            values = read_settings(context, config)
            for name, value in values.items():
                annotation = signature.parameters[name].annotation
                _require_type(config, option_names(context)[name], annotation, value)
            context.default_map = values
        return config

    @wraps(function)
    def run(typer_context: typer.Context, **values: Any) -> Any:
        del values["config"]
        if not keeps_settings or "out" not in values:
            return function(**values)
        keys = option_names(typer_context)
        settings = {keys[name]: value for name, value in values.items()}
        path = Path(values["out"]) / SETTINGS_FILE
        with _withdrawn_when_refused(path):
            write_settings(path, typer_context.command_path, settings)
            return function(**values)

    del run.__wrapped__  # or Typer would see the old parameters
    option = typer.Option(
        "--config",
        help="TOML file with settings by option name; the command line wins over it.",
        exists=True,
        dir_okay=False,
        readable=True,
        is_eager=True,  # its values must be there when the others are looked up
        callback=load,
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("typer_context", keyword, annotation=typer.Context),
        inspect.Parameter(
            "config", keyword, default=None, annotation=Annotated[Path | None, option]
        ),
    ]
    own = [p.replace(kind=keyword) for p in signature.parameters.values()]
    run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
    return run


@contextmanager
def _withdrawn_when_refused(path: Path) -> Iterator[None]:
    """Settings that the command refuses must not stand in place of those that the run used."""
    before = path.read_bytes() if path.is_file() else None
    try:
        yield
    except (typer.BadParameter, ValueError):
        if before is not None:
            path.write_bytes(before)
        else:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # the folder holds something else, or never came to be
                path.parent.rmdir()
        raise


def _require_type(path: Path, key: str, annotation: Any, value: Any) -> None:
    """By JSON's strict rules: no number for a text, no fraction for a whole number."""
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise typer.BadParameter(f"{path}: {key} = {value!r}: {problem}") from error


def _plain(value: Any) -> Any:
    """What TOML can hold: paths and choices as text, tuples as arrays."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
