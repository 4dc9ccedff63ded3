"""docs/api.md is what the .proto files say, all of it, and cannot go stale unseen."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from velatura.server.imaging.errors import Reason
from velatura.v1.errors_pb2 import ErrorReason

from .repository import ROOT, copy_sources, run

PAGE = ROOT / "docs" / "api.md"
PROTOS = sorted(
    path
    for path in (ROOT / "protos").rglob("*.proto")
    if path.name not in {"constraints.proto", "errors.proto"}
)
PREFIX = "ERROR_REASON_"
REASONS = list(ErrorReason.DESCRIPTOR.values_by_name)


def test_the_page_is_fresh() -> None:
    outcome = run("scripts/api-docs", "--check")
    assert outcome.returncode == 0, outcome.stderr


def test_a_changed_comment_or_limit_makes_the_page_stale(tmp_path: Path) -> None:
    copy = copy_sources(tmp_path)
    (copy / "docs").mkdir()
    (copy / "docs/api.md").write_text(PAGE.read_text())
    assert run("scripts/api-docs", "--check", cwd=copy).returncode == 0
    proto = copy / "protos/velatura/v1/region.proto"
    text = proto.read_text()
    for old, new in (("// Left edge.", "// Leftmost column."), ("max: 512", "max: 511")):
        proto.write_text(text.replace(old, new, 1))
        outcome = run("scripts/api-docs", "--check", cwd=copy)
        assert outcome.returncode == 1
        assert "docs/api.md is stale: run 'make proto'" in outcome.stderr


def test_lint_checks_the_page() -> None:
    assert "scripts/api-docs --check" in (ROOT / "scripts/lint").read_text()


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
def test_everything_declared_is_on_the_page_with_a_comment(proto: Path) -> None:
    page = PAGE.read_text()
    text = re.sub(r"//.*", "", proto.read_text())
    for kind, name in re.findall(r"\b(message|enum|service|rpc) (\w+)", text):
        heading = rf"^##+ (?:\w+\.)?{name}$"
        assert re.search(heading, page, re.MULTILINE), f"{kind} {name}"
    for name in re.findall(r"\b(\w+) = \d+(?: \[|;)", text):
        assert f"`{name}`" in page


def test_everything_on_the_page_is_explained() -> None:
    lines = PAGE.read_text().splitlines()
    heads = {n for n, line in enumerate(lines[:-1]) if lines[n + 1].startswith("|---")}
    rows = [line for n, line in enumerate(lines) if line.startswith("| ") and n not in heads]
    assert len(rows) > 200
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


def test_links_lead_somewhere() -> None:
    page = PAGE.read_text()
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 100
    for link in links:
        file, _, anchor = link.partition("#")
        if file:
            assert (PAGE.parent / file).exists(), link
        else:
            assert anchor in anchors, link


def uppercase(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and re.fullmatch(r"[A-Z][A-Z_]+", str(node.value)):
            yield str(node.value)


def reasons_of_the_server() -> set[str]:
    """Every reason that the server's code can put into an answer."""
    found = {reason.value for reason in Reason}
    for folder in ("rpc", "pipelines", "engine"):
        for path in (ROOT / "server/velatura/server" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                given = [*node.args, *(keyword.value for keyword in node.keywords)]
                if name in {"Failure", "InvalidRequest", "of", "Unavailable"}:
                    found |= set(uppercase(given))
                if name in {"UnknownThing", "UnknownName"} and isinstance(given[0], ast.Constant):
                    kind = str(given[0].value)
                    found.add("UNKNOWN_" + kind.upper().replace(" ", "_"))
    return found | {"INVALID_FIELD"}  # a default


def test_reasons_of_the_server_and_of_the_schema_are_the_same() -> None:
    declared = {name.removeprefix(PREFIX) for name in REASONS} - {"UNSPECIFIED"}
    assert reasons_of_the_server() == declared


def test_every_reason_has_its_status() -> None:
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    codes = {code.name for code in grpc.StatusCode}
    found = {reason: status for status, reason, _ in rows if status in codes}
    assert {PREFIX + reason for reason in found} | {f"{PREFIX}UNSPECIFIED"} == set(REASONS)
