"""The committed stubs are those of the .proto files, and run on what the packages ask for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from .repository import ROOT, copy_sources, pyproject, run

PROTOS = ROOT / "protos"


def test_stubs_are_fresh() -> None:
    outcome = run("scripts/proto", "--check")
    assert outcome.returncode == 0, outcome.stderr


def test_a_changed_proto_makes_the_stubs_stale(tmp_path: Path) -> None:
    copy = copy_sources(tmp_path)
    proto = copy / "protos/velatura/v1/region.proto"
    proto.write_text(proto.read_text() + "\nmessage Planted {\n  bool set = 1;\n}\n")
    outcome = run("scripts/proto", "--check", cwd=copy)
    assert outcome.returncode != 0
    assert "region_pb2.py is stale" in outcome.stderr


@pytest.mark.parametrize("stub", sorted(PROTOS.rglob("*_pb2.py")), ids=lambda path: path.name)
def test_protobuf_bound_admits_no_runtime_older_than_the_stubs(stub: Path) -> None:
    call = re.search(r"Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+)", stub.read_text())
    assert call is not None
    assert _lower_bound("protos", "protobuf") >= Version(".".join(call.groups()))


@pytest.mark.parametrize("stub", sorted(PROTOS.rglob("*_pb2_grpc.py")), ids=lambda path: path.name)
def test_grpcio_bound_admits_no_runtime_older_than_the_stubs(stub: Path) -> None:
    generated = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", stub.read_text())
    assert generated is not None
    for package in ("protos", "clients", "server"):
        assert _lower_bound(package, "grpcio") >= Version(generated[1])


def _lower_bound(package: str, name: str) -> Version:
    requirements = map(Requirement, pyproject(package)["project"]["dependencies"])
    (requirement,) = (found for found in requirements if found.name == name)
    (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
    return Version(bound)
