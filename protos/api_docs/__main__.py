"""`python -m api_docs [--check]`: writes docs/api.md, or fails when it would write another."""

from __future__ import annotations

import sys
from pathlib import Path

from api_docs.markdown import Page
from api_docs.schema import read

HERE = Path(__file__).parent
PROTOS = HERE.parent
PAGE = PROTOS.parent / "docs" / "api.md"

# In the order of a reader's interest; those that are not named follow, so that none is forgotten.
FIRST = ("edit", "stylize", "segment", "generate", "catalog")
LAST = ("region", "image", "bundle", "errors")


def paths() -> list[str]:
    """The files that callers see, relative to the protos' folder."""
    there = {path.stem for path in (PROTOS / "velatura" / "v1").glob("*.proto")} - {"constraints"}
    middle = sorted(there - set(FIRST) - set(LAST))
    names = [name for name in (*FIRST, *middle, *LAST) if name in there]
    return [*(f"velatura/v1/{name}.proto" for name in names), "inference/open_inference.proto"]


def page() -> str:
    """What docs/api.md is to be."""
    examples = {path.name: path.read_text() for path in sorted((HERE / "examples").iterdir())}
    return Page(read(PROTOS, paths()), (HERE / "preamble.md").read_text(), examples).text()


def main() -> int:
    """Write or check; 1 when the page is stale."""
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.is_file() or PAGE.read_text() != text:
            print("docs/api.md is stale: run 'make proto' and commit", file=sys.stderr)
            return 1
        return 0
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
