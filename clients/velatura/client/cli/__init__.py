"""The `velatura` command line: edits, styles and segments files and folders through a server."""

from __future__ import annotations

from velatura.client.cli.app import app

__all__ = ["app"]
