"""Logs: one line an event on stderr, JSON or for people; the standard library's records go the same
way."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum

import structlog


class LogFormat(StrEnum):
    """How a line looks; by itself as for people on a terminal, and else as for programs, which is
    written in a third of the time."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LineLogger(structlog.WriteLogger):
    """Writes each line at once, and knows its name. The standard library's loggers would make a
    record of every line first, and look up who called: half of what a line costs.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name  # where structlog's `add_logger_name` looks


def configure(level: LogLevel, kind: LogFormat) -> None:
    """Set up structlog and the root logger; call once, before the first line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # Without local variables: those of a failed call hold its message, with what is in the image.
    ending: list[structlog.typing.Processor]
    on_terminal = sys.stderr.isatty()
    if kind is LogFormat.JSON or (kind is LogFormat.AUTO and not on_terminal):
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ending = [
            structlog.processors.ExceptionRenderer(frames),
            structlog.processors.JSONRenderer(),
        ]
    else:
        traceback = structlog.dev.RichTracebackFormatter(show_locals=False)
        ending = [structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=traceback)]
    structlog.configure(
        processors=[*shared, *ending],
        logger_factory=LineLogger,
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
