"""The package: one API told twice, light to import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from velatura.client import (
    AsyncClient,
    Client,
)

Call = Callable[..., Any]


def test_both_clients_are_one_api() -> None:
    def public(kind: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [
                (p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()
            ]
            for name, member in vars(kind).items()
            if inspect.isfunction(member) and (not name.startswith("_") or name == "__init__")
        }

    assert public(Client) == public(AsyncClient)
    assert len(public(Client)) == 13


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import velatura.client", {"grpc", "PIL", "google", "numpy", "onnxruntime", "torch"}),
        (
            "import velatura.client; velatura.client.Client; velatura.client.AsyncClient",
            {"numpy", "onnxruntime", "torch", "typer", "rich", "velatura.server"},
        ),
        ("import velatura.client.cli", {"numpy", "onnxruntime", "torch", "velatura.server"}),
        ("import velatura.client.cli; velatura.client.Client", {"locust", "gevent"}),
        ("import velatura.client.loadtest.cli", {"locust", "gevent", "grpc", "numpy"}),
    ],
)
def test_what_importing_loads(statement: str, forbidden: set[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(run.stdout.split())
    assert "velatura.client" in loaded
    assert not forbidden & loaded


def test_every_public_name_is_there() -> None:
    import velatura.client

    for name in velatura.client.__all__:
        assert getattr(velatura.client, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Sorcerer'"):
        _ = velatura.client.Sorcerer
