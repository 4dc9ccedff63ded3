"""Where the repository and its programs are, and copies of it that a test may damage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
PACKAGES = ("protos", "clients", "server", "export", "training")


def run(
    *command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command with this environment's programs first on PATH; its outcome and output."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PATH": path, "PYTHON": sys.executable, "BIN": str(BIN), **(env or {})},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def copy_sources(target: Path) -> Path:
    """Copies the packages, the scripts and the root settings to `target`, without what is generated
    by running them."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.onnx", "*.safetensors")
    for name in (*PACKAGES, "scripts"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def pyproject(package: str) -> dict[str, Any]:
    """The parsed pyproject.toml of one package."""
    return tomllib.loads((ROOT / package / "pyproject.toml").read_text())
