"""Writes the dashboards' JSON, or checks that what is committed is what would be written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from velatura_ops.dashboards.catalog import BOARDS
from velatura_ops.dashboards.grafana import to_json
from velatura_ops.queries import FOLDER


def stale(folder: Path) -> list[str]:
    """Names of files that are missing, differ, or belong to no dashboard."""
    wanted = {f"{board.name}.json": to_json(board) for board in BOARDS}
    there = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(
        name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name)
    )


def write(folder: Path) -> None:
    """Write every dashboard, and remove files that belong to none."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for board in BOARDS:
        (folder / f"{board.name}.json").write_text(to_json(board))


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="scripts/dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="(%(default)s)")
    options = parser.parse_args()
    if not options.check:
        write(options.folder)
        return 0
    different = stale(options.folder)
    for name in different:
        print(f"{name} is not what the code writes: run scripts/dashboards", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
