"""What the README promises is there: commands, flags, settings, RPCs, files."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer.main

from inference import open_inference_pb2
from velatura.client.cli import app
from velatura.server.settings import Settings
from velatura.v1 import catalog_pb2, edit_pb2, generate_pb2, segment_pb2, stylize_pb2

from .repository import ROOT

README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
COMMANDS: Any = typer.main.get_command(app)


def blocks(language: str) -> list[str]:
    """The fenced code of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def lines_of(program: str) -> list[list[str]]:
    """The arguments of each line of the shell blocks that runs `program`."""
    lines = "".join(blocks("sh")).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.split(" ")[0] == program]


def test_settings_are_all_listed_with_their_defaults() -> None:
    listed = dict(re.findall(r"^\| `--([\w-]+)` \|([^|]*)\|", README, re.MULTILINE))
    assert list(listed) == [name.replace("_", "-") for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        shown = listed[name.replace("_", "-")].strip(" `")
        default = getattr(field.default, "value", field.default)
        if name == "bundle":
            assert shown == "the embedded one"
        elif isinstance(default, bool):
            assert shown == ("on" if default else "off"), name
        else:
            assert shown == ("" if default is None else str(default)), name


def test_rpcs_are_all_listed() -> None:
    files = (
        edit_pb2, stylize_pb2, segment_pb2, generate_pb2, catalog_pb2, open_inference_pb2,
    )  # fmt: skip
    for file in files:
        for service in file.DESCRIPTOR.services_by_name.values():
            assert f"| `{service.name}` |" in README
            for method in service.methods:
                assert f"| `{method.name}` |" in README


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"\bmake ([a-z-]+)", "".join(re.findall(r"`[^`]+`", README)))
    assert {*named, *(line[0] for line in lines_of("make"))} <= targets


def test_the_python_example_uses_what_the_client_has() -> None:
    (example,) = blocks("python")
    compile(example, "README.md", "exec")
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    from velatura.client import Client

    for method in re.findall(r"client\.(\w+)\(", example):
        assert callable(getattr(Client, method))


@pytest.mark.parametrize("arguments", lines_of("velatura"), ids=" ".join)
def test_command_line_is_understood(arguments: list[str]) -> None:
    command = COMMANDS.commands[arguments[0]]
    command.make_context(arguments[0], arguments[1:])  # raises for an unknown flag or a bad value


def test_links_lead_somewhere() -> None:
    for text, folder in ((README, ROOT), (ARCHITECTURE, ROOT / "docs")):
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / target).exists(), target
