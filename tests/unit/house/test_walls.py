"""The import walls hold, and each of them really stops what it names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .repository import PACKAGES, copy_sources, run

PLANTED = [
    ("server/velatura/server/imaging/planted.py", "import torch", "neither torch"),
    ("server/velatura/server/planted.py", "import velatura.export", "neither torch"),
    ("server/velatura/server/engine/planted.py", "import velatura.training", "neither torch"),
    ("server/velatura/server/engine/planted.py", "import velatura.server.rpc", "request's way"),
    (
        "server/velatura/server/imaging/planted.py",
        "import velatura.server.pipelines",
        "request's way",
    ),
    ("server/velatura/server/imaging/planted.py", "import grpc", "arrays and pixels"),
    ("server/velatura/server/engine/planted.py", "import inference", "Only rpc speaks"),
    ("clients/velatura/client/planted.py", "import numpy", "stays thin"),
    ("clients/velatura/client/planted.py", "import onnxruntime", "stays thin"),
    ("clients/velatura/client/planted.py", "import velatura.server", "stays thin"),
    ("export/velatura/export/planted.py", "import velatura.server", "only in the bundle"),
    ("export/velatura/export/planted.py", "import velatura.training", "however they were trained"),
    ("protos/velatura/v1/planted.py", "import velatura.client", "depends on nobody"),
]


def check_walls(copy: Path) -> tuple[int, str]:
    """Exit code and output of import-linter over a copy; the copy's packages hide the installed."""
    path = os.pathsep.join(str(copy / package) for package in PACKAGES)
    outcome = run(
        "lint-imports", "--no-cache", cwd=copy, env={"PYTHONPATH": path, "COLUMNS": "200"}
    )
    return outcome.returncode, outcome.stdout + outcome.stderr


def test_walls_hold(tmp_path: Path) -> None:
    code, output = check_walls(copy_sources(tmp_path))
    assert code == 0, output


@pytest.mark.parametrize(("file", "statement", "contract"), PLANTED)
def test_a_planted_violation_is_found(
    tmp_path: Path, file: str, statement: str, contract: str
) -> None:
    copy = copy_sources(tmp_path)
    # Inside a function, where a late import would hide from a look at the module's head.
    (copy / file).write_text(f"def planted() -> None:\n    {statement}\n")
    code, output = check_walls(copy)
    assert code == 1, output
    (broken,) = (line for line in output.splitlines() if contract in line and "BROKEN" in line)
    assert broken
