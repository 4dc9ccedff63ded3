"""`--config FILE.toml` and OUT/settings.toml, for every command of `velatura-train`."""

from __future__ import annotations

import tomllib
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from velatura.training.cli import app as train
from velatura.training.command_settings import SETTINGS_FILE, ConfiguredTyper

CONFIGS = Path(__file__).parents[3] / "training" / "configs"
COMMANDS = get_command(train).commands  # type: ignore[attr-defined]


class Kind(Enum):
    PLAIN = "plain"
    FANCY = "fancy"


SEEN: dict[str, Any] = {}
app = ConfiguredTyper()


@app.command()
def work(
    source: Annotated[Path, typer.Option("--data", help="Named unlike its parameter.")],
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("runs/work"),
    steps: Annotated[int, typer.Option(min=1)] = 10,
    learning_rate: float = 1e-3,
    kind: Kind = Kind.PLAIN,
    mirror: bool = True,
    sizes: list[int] = [8, 16],  # noqa: B006 - how Typer takes the default of several values
    start_from: Path | None = None,
) -> None:
    """Keeps what it was called with."""
    SEEN.clear()
    SEEN.update(locals())


@app.command()
def picky(out: Path, steps: int = 10) -> None:
    """Refuses what does not fit its run, as a resumed training does."""
    if steps > 10:
        raise typer.BadParameter(f"steps: {steps} is too many")


@app.command(keeps_settings=False)
def report(out: Path = Path("docs")) -> None:
    """Writes reports, not runs."""


def invoke(*arguments: str | Path, code: int = 0) -> str:
    given = list(map(str, arguments))
    done = CliRunner().invoke(app, given, env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert done.exit_code == code, done.output
    return done.output


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "given.toml"
    path.write_text(text)
    return path


def test_every_command_takes_a_configuration() -> None:
    assert len(COMMANDS) >= 6
    for name, command in COMMANDS.items():
        assert "--config" in [opt for p in command.params for opt in p.opts], name


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_example_configurations_are_their_commands(path: Path) -> None:
    command = COMMANDS[path.stem.partition("-")[0]]
    context = command.make_context(command.name, ["--config", str(path)])
    for key, value in tomllib.loads(path.read_text()).items():
        got = context.params[key]
        assert (str(got) if isinstance(value, str) else got) == value
    first = path.read_text().splitlines()[0]
    assert first == f"# velatura-train {command.name} --config training/configs/{path.name}"


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    text = 'data = "pictures"\nsteps = 20\nlearning-rate = 1\nmirror = false\nkind = "fancy"\n'
    path = config(tmp_path, text + f'sizes = [32]\nout = "{tmp_path / "run"}"\n')
    invoke("work", "--config", path, "--steps", "30")
    assert (SEEN["source"], SEEN["steps"], SEEN["learning_rate"]) == (Path("pictures"), 30, 1.0)
    assert (SEEN["mirror"], SEEN["kind"], SEEN["sizes"]) == (False, Kind.FANCY, [32])
    assert SEEN["start_from"] is None


def test_a_run_is_repeated_from_the_settings_that_it_leaves(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    invoke("work", "--data", 'a "b"', "--no-mirror", "--kind", "fancy", "--sizes", "4", "-o", first)
    before = dict(SEEN)
    invoke("work", "--config", first / SETTINGS_FILE, "--out", second)
    assert {**before, "out": None} == {**SEEN, "out": None}
    kept = [tomllib.loads((run / SETTINGS_FILE).read_text()) for run in (first, second)]
    assert kept[0]["steps"] == 10  # defaults are kept as well: a later version may change them
    assert "start_from" not in kept[0]
    assert {**kept[0], "out": str(second)} == kept[1]
    assert sorted(path.name for path in first.iterdir()) == [SETTINGS_FILE]


def test_a_command_that_is_no_run_leaves_none(tmp_path: Path) -> None:
    invoke("report", "--out", tmp_path)
    assert not list(tmp_path.iterdir())


def test_refused_settings_leave_those_of_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    invoke("picky", out, "--steps", "20", code=2)
    assert not out.exists()
    invoke("picky", out, "--steps", "5")
    invoke("picky", out, "--steps", "20", code=2)
    assert tomllib.loads((out / SETTINGS_FILE).read_text())["steps"] == 5
    invoke("picky", out, "--steps", "6")
    assert tomllib.loads((out / SETTINGS_FILE).read_text())["steps"] == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stepz = 3",
            "work has no setting stepz; it knows data, kind, learning_rate, mirror, out,",
        ),
        ("[work]\nsteps = 3", "has no setting work"),
        ("config = 'a.toml'", "has no setting config"),
        ("steps = ", "not TOML"),
        ("steps = 2.5", "steps = 2.5: Input should be a valid integer"),
        ("steps = true", "steps = True: Input should be a valid integer"),
        ("steps = '3'", "steps = '3': Input should be a valid integer"),
        ("steps = 0", "Invalid value for '--steps'"),
        ("mirror = 1", "mirror = 1: Input should be a valid boolean"),
        ("data = 3", "data = 3: Input should be a valid string"),
        ("kind = 'odd'", "kind = 'odd': Input should be 'plain' or 'fancy'"),
        ("sizes = [1, 'a']", "sizes = [1, 'a']: Input should be a valid integer"),
        ("learning_rate = 1\nlearning-rate = 2", "a key occurs twice"),
    ],
)
def test_what_a_file_gets_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    output = invoke("work", "--data", "x", "--config", config(tmp_path, text), code=2)
    assert message in output
    assert not Path("runs/work").exists()


def test_a_missing_file_and_a_missing_setting_are_named(tmp_path: Path) -> None:
    assert "none.toml" in invoke("work", "--config", tmp_path / "none.toml", code=2)
    assert "--data" in invoke("work", "--config", config(tmp_path, "steps = 3"), code=2)


def test_a_command_may_not_have_a_config_of_its_own() -> None:
    def clash(config: Path) -> None:
        del config

    with pytest.raises(TypeError, match="--config is every command's"):
        ConfiguredTyper().command()(clash)
