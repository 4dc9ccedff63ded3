"""What the log shows of an unexpected error: where it happened, and nothing of what was sent."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from velatura.server.observability.logging import LogFormat, LogLevel, configure


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def fail(content: str) -> None:
    raise RuntimeError(f"broken after {len(content)} characters")


@pytest.mark.parametrize("kind", LogFormat)
@pytest.mark.usefixtures("restored")
def test_tracebacks_name_the_place_and_not_the_content(
    kind: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(LogLevel.INFO, kind)
    content = " etavirp"[::-1] * 3  # the lines shown of this file do not hold the word itself
    try:
        fail(content)
    except RuntimeError as error:
        structlog.get_logger("test").error("unexpected error", exc_info=error)
    shown = capsys.readouterr().err
    assert "RuntimeError" in shown
    assert "test_logging.py" in shown
    assert content[:7] not in shown
