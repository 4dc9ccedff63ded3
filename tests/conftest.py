"""Fixtures for every test: the bundle under test, and real servers on it, always stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from .running import RunningServer, start_server

StartServer = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def bundle_path() -> Path:
    """The bundle under test: VELATURA_TEST_BUNDLE, else the embedded one."""
    given = os.environ.get("VELATURA_TEST_BUNDLE")
    path = Path(given) if given else Path(__file__).parents[1] / "models"
    if not (path / "manifest.json").is_file():
        pytest.fail(f"there is no bundle at {path}: run `make models` or set VELATURA_TEST_BUNDLE")
    return path


@pytest.fixture
def start(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start servers of the test's own with extra flags: `start("--max-requests", "2")`."""
    started: list[RunningServer] = []

    def starter(*arguments: str) -> RunningServer:
        server = start_server(bundle_path, tmp_path_factory.mktemp("server"), arguments)
        started.append(server)
        return server

    yield starter
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def server(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with default settings for all tests that leave it as it was."""
    running = start_server(bundle_path, tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def channel(server: RunningServer) -> grpc.Channel:
    """A channel to the shared server."""
    return server.channel()
