"""House rules that no linter knows."""

from __future__ import annotations

import subprocess

import pytest

from .repository import PACKAGES, ROOT

# Printed in docs/api.md as they stand; their first lines are for its readers.
EXAMPLES = ROOT / "protos" / "api_docs" / "examples"
SOURCES = sorted(
    path
    for package in (*PACKAGES, "deploy")
    for path in (ROOT / package).rglob("*.py")
    if not path.stem.endswith(("_pb2", "_pb2_grpc")) and path.parent != EXAMPLES
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_has_one_responsibility_and_says_which(path) -> None:  # type: ignore[no-untyped-def]
    text = path.read_text()
    assert len(text.splitlines()) <= 400, "split it: a module has one responsibility"
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}
    if text.strip():
        assert text.lstrip().startswith(('"""', 'r"""')), "say what the module is responsible for"


def test_no_file_names_a_package_index() -> None:
    hosts = ("pypi.org", "pythonhosted.org", "registry.npmjs", "download.pytorch.org")
    found = subprocess.run(
        [
            "git",
            "grep",
            "-I",
            "-l",
            *(f"-e{host}" for host in hosts),
            "--",
            ".",
            ":!tests/unit/house",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
