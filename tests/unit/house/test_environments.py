"""What each environment holds and what importing each package loads."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .repository import PACKAGES, ROOT, pyproject, run

RUNTIME = ROOT / ".venv/bin/python"
EVERY_MODULE_WITHOUT = """
import importlib, pkgutil, sys
for name in {refused!r}:
    sys.modules[name] = None  # importing it now raises ModuleNotFoundError
import {package} as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
    print(module.name)
"""


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after `statement`."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    outcome = run(sys.executable, "-c", code)
    assert outcome.returncode == 0, outcome.stderr
    return {name.partition(".")[0] for name in json.loads(outcome.stdout)}


def test_the_client_loads_neither_networks_nor_arrays() -> None:
    loaded = loaded_by(
        "import velatura.client; velatura.client.Client; velatura.client.AsyncClient"
    )
    assert "grpc" in loaded
    assert not loaded & {"onnxruntime", "torch", "numpy", "cv2"}


@pytest.mark.parametrize(
    ("package", "refused"),
    [
        ("velatura.server", ["torch", "velatura.export", "velatura.training"]),
        ("velatura.client", ["torch", "onnxruntime", "numpy", "cv2", "velatura.server"]),
    ],
)
def test_every_module_imports_without(package: str, refused: list[str]) -> None:
    outcome = run(
        sys.executable, "-c", EVERY_MODULE_WITHOUT.format(package=package, refused=refused)
    )
    assert outcome.returncode == 0, outcome.stderr
    assert len(outcome.stdout.splitlines()) > 3


@pytest.mark.skipif(not RUNTIME.exists(), reason="`make setup` has not made .venv")
def test_the_runtime_environment_serves_and_has_no_torch() -> None:
    code = (
        "import importlib.util as u, velatura.server, velatura.client, onnxruntime;"
        "names = ('torch', 'torchvision', 'velatura.export', 'velatura.training', 'pytest');"
        "print([name for name in names if u.find_spec(name)])"
    )
    outcome = run(RUNTIME, "-I", "-c", code)
    assert outcome.stdout.strip() == "[]", outcome.stdout + outcome.stderr


def pins(file: str) -> dict[str, str]:
    """Names and the rest of each line of a constraints file."""
    found = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / file).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-gpu.txt"])
def test_nothing_of_torch_is_pinned_for_the_server(file: str) -> None:
    assert not [name for name in pins(file) if "torch" in name or name == "triton"]


def test_the_tests_run_on_what_is_shipped() -> None:
    developers = pins("constraints-dev.txt")
    for name, version in pins("constraints.txt").items():
        assert developers[name] == version


@pytest.mark.parametrize("package", PACKAGES)
def test_every_dependency_has_a_lower_bound_and_a_pin_that_meets_it(package: str) -> None:
    project = pyproject(package)["project"]
    file = "constraints-dev.txt" if package in {"export", "training"} else "constraints.txt"
    assert project["requires-python"] == ">=3.11"
    for requirement in map(Requirement, project["dependencies"]):
        if requirement.name.startswith("velatura-"):
            continue
        assert any(part.operator == ">=" for part in requirement.specifier), requirement
        assert pins(file)[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_tritonclient_is_pinned_apart_since_it_wants_another_protobuf() -> None:
    apart = pins("constraints-triton.txt")
    (requirement,) = pyproject(".")["dependency-groups"]["tritonclient"]
    assert apart["tritonclient"] in Requirement(requirement).specifier
    assert "tritonclient" not in pins("constraints-dev.txt")


def test_what_loads_a_server_has_neither_networks_nor_arrays() -> None:
    load, shipped = pins("constraints-load.txt"), pins("constraints.txt")
    (requirement,) = pyproject("clients")["project"]["optional-dependencies"]["loadtest"]
    assert load["locust"] in Requirement(requirement).specifier
    assert not load.keys() & {"numpy", "torch", "onnxruntime", "onnxruntime-gpu"}
    for name in load.keys() & shipped.keys():
        assert load[name] == shipped[name]


def test_one_onnxruntime_for_each_extra() -> None:
    extras = pyproject("server")["project"]["optional-dependencies"]
    names = {extra: {Requirement(line).name for line in lines} for extra, lines in extras.items()}
    assert "onnxruntime" in names["cpu"]
    assert "onnxruntime-gpu" in names["gpu"]
    assert "onnxruntime-gpu" not in names["cpu"]
    assert "onnxruntime" not in names["gpu"] | names["cuda"]


@pytest.mark.parametrize("package", PACKAGES)
def test_velatura_stays_a_namespace(package: str) -> None:
    assert not Path(ROOT, package, "velatura/__init__.py").exists()
