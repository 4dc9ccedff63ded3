"""Clients of the shared server and of one that waits for full batches, and the bundle's names.

Both keep nothing between requests: what is looked at here is what the networks do. Caches have
tests of their own in tests/contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from velatura.client import NO_RETRY, Client

from ..running import RunningServer, start_server

# Nothing here is about speed: a busy machine may take its time.
TIMEOUT_S = 240.0


def client_of(server: RunningServer) -> Client:
    """A client that neither hides refusals by sending again nor gives up early."""
    return Client(server.address, timeout=TIMEOUT_S, retry=NO_RETRY)


@dataclass(frozen=True)
class Names:
    """What the bundle has to offer, as requests and metrics name it."""

    directions: tuple[str, ...]
    layers: dict[str, tuple[int, int]]  # of each direction
    styles: tuple[str, ...]
    classes: tuple[str, ...]
    synthesis: str
    encoder: str
    num_ws: int
    w_dim: int
    resolution: int
    by_role: dict[str, str]


NOTHING_KEPT = ("--cache-mib", "0")


@pytest.fixture(scope="session")
def server(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with default settings but for the caches; for tests that leave it as it was."""
    running = start_server(bundle_path, tmp_path_factory.mktemp("server"), NOTHING_KEPT)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Iterator[Client]:
    """A client of the server with default settings: it never waits for company."""
    with client_of(server) as connected:
        yield connected


@pytest.fixture(scope="session")
def gathering(
    bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server whose networks wait a second for their batch of eight to fill."""
    running = start_server(
        bundle_path,
        tmp_path_factory.mktemp("gathering"),
        [*NOTHING_KEPT, "--max-queue-delay-ms", "1000", "--default-deadline-s", "300"],
    )
    yield running
    running.stop()


@pytest.fixture(scope="session")
def names(client: Client) -> Names:
    """The bundle's names, asked of the server."""
    catalog = client.list_models()
    generator = catalog.generators[0]
    directions = client.list_directions()
    return Names(
        directions=tuple(each.name for each in directions),
        layers={each.name: each.layers for each in directions},
        styles=tuple(each.name for each in client.list_styles()),
        classes=tuple(each.name for each in client.list_region_classes()),
        synthesis=generator.synthesis,
        encoder=generator.encoder,
        num_ws=generator.num_ws,
        w_dim=generator.w_dim,
        resolution=generator.resolution,
        # The first of a role is the one that runs where a request names none.
        by_role={each.role: each.name for each in reversed(catalog.models)},
    )
