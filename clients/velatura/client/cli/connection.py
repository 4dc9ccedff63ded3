"""Options that every command shares, and the client they describe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from velatura.client.cli.arguments import BadArgument, existing
from velatura.client.cli.batch import explain
from velatura.client.errors import VelaturaError
from velatura.client.sync_client import Client

DEFAULT_SERVER = "127.0.0.1:8500"

Server: TypeAlias = Annotated[
    str,
    typer.Option(envvar="VELATURA_SERVER", metavar="HOST:PORT", help="Server."),
]
Timeout: TypeAlias = Annotated[
    float,
    typer.Option(min=0.001, help="Seconds that one call may take."),
]
ApiKey: TypeAlias = Annotated[
    str | None,
    typer.Option(envvar="VELATURA_API_KEY", help="API key, where the server asks."),
]
UseTls: TypeAlias = Annotated[bool, typer.Option("--tls", help="Connect by TLS.")]
CaFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE", help="Trust these root certificates (PEM)."),
]


@dataclass(frozen=True)
class Connection:
    """Where the server is and how to reach it."""

    server: str
    timeout: float
    api_key: str | None
    tls: bool
    ca: Path | None

    def open(self) -> Client:
        """A client; nothing is sent yet."""
        from velatura.client.channel import Tls

        tls: Tls | bool = self.tls
        if self.ca is not None:
            tls = Tls(root_certificates=existing(self.ca, "--ca"))
        return Client(self.server, timeout=self.timeout, api_key=self.api_key, tls=tls)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn expected errors into one line on stderr and exit code 2 (what was typed) or 1."""
    try:
        yield
    except BadArgument as error:
        _fail(str(error), 2)
    except (VelaturaError, OSError) as error:
        _fail(explain(error), 1)


def finish(code: int) -> None:
    """End the command with this exit code."""
    if code:
        raise typer.Exit(code)


def _fail(message: str, code: int) -> None:
    print(f"velatura: {message}", file=sys.stderr)
    raise typer.Exit(code)
