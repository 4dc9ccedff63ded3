"""The commands that people and scripts rely on are there and do what their names say."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from .repository import ROOT, run

TARGETS = [
    "help", "setup", "setup-dev", "demo", "serve", "test", "lint", "bench", "bench-peers", "proto",
    "models", "evaluate", "load", "stack", "dashboards", "clean",
]  # fmt: skip


# Inside another make, as in `make test`, it would also say which folder it is in.
DRY_RUN = ("make", "--no-print-directory", "--dry-run", "--always-make")


def commands_of(target: str) -> str:
    """Every command that a target runs when nothing has been made yet, without running any."""
    outcome = run(*DRY_RUN, "PYTHON=python3", target)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_target_exists(target: str) -> None:
    assert commands_of(target)


@pytest.mark.parametrize("target", TARGETS)
def test_help_names_the_target(target: str) -> None:
    assert re.search(rf"^  make {target} +[A-Z]", run("make", "help").stdout, re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_scripts_that_a_target_runs_are_there(target: str) -> None:
    commands = commands_of(target)
    for script in re.findall(r"\b(?:scripts|examples|benchmarks)/[\w./-]+", commands):
        assert (ROOT / script).is_file(), f"make {target} runs {script}, which does not exist"


def test_the_runtime_environment_is_made_without_the_developers_packages() -> None:
    commands = commands_of("setup")
    assert "-c constraints.txt -e ./protos -e ./clients -e './server[cpu]'" in commands
    assert not re.search("torch|export|training|dev", commands)


def test_torch_is_installed_before_everything_else_of_the_developers() -> None:
    installs = [
        line
        for line in commands_of("setup-dev").splitlines()
        if "pip" in line and "install" in line
    ]
    assert installs[0].endswith("-c constraints-dev.txt pip torch torchvision")


def test_another_python_makes_the_environment_and_is_not_handed_to_the_scripts() -> None:
    commands = run(*DRY_RUN, "PYTHON=python3.12", "proto").stdout
    assert "python3.12 -m venv .venv-dev\n" in commands
    assert f"PYTHON={ROOT}/.venv-dev/bin/python scripts/proto" in commands


def test_tests_are_run_beside_a_runtime_environment() -> None:
    commands = commands_of("test")
    assert "-m venv .venv\n" in commands
    assert "-m venv .venv-dev\n" in commands
    assert ".venv-triton/bin/python -m pip" in commands
    *_, computing, others = commands.strip().splitlines()
    folders = computing.rpartition("--dist loadfile ")[2].split()
    assert folders
    assert all((ROOT / folder).is_dir() for folder in folders)
    ignored = " ".join(f"--ignore={folder}" for folder in folders)
    assert others.endswith(f".venv-dev/bin/pytest -q {ignored}")


def test_an_old_python_is_refused_in_one_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    outcome = run("scripts/python-version", old)
    assert outcome.returncode == 1
    assert "Velatura needs Python 3.11 or later" in outcome.stderr
    assert "Python 3.9.2" in outcome.stderr
    assert run("scripts/python-version", sys.executable).returncode == 0


def test_continuous_integration_checks_and_then_tests() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert 0 < text.index("make lint") < text.index("make test")


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").iterdir()), ids=lambda path: path.name)
def test_scripts_run_and_are_sound_bash(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert run("bash", "-n", script).returncode == 0
