"""Errors that images, masks and regions cause: each names the field, the limit and the remedy."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Machine-readable cause of an `ImageError`."""

    EMPTY = "EMPTY"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    TRUNCATED = "TRUNCATED"
    CORRUPT = "CORRUPT"
    ANIMATED = "ANIMATED"
    TOO_MANY_BYTES = "TOO_MANY_BYTES"
    TOO_MANY_PIXELS = "TOO_MANY_PIXELS"
    SIDE_TOO_LONG = "SIDE_TOO_LONG"
    WRONG_SIZE = "WRONG_SIZE"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    OUTSIDE_IMAGE = "OUTSIDE_IMAGE"
    UNKNOWN_CLASS = "UNKNOWN_CLASS"


class ImageError(ValueError):
    """An image or region that cannot be used.

    `field` is the caller's name of the bad value, `limit` and `actual` are the figures that clash
    (None where there are none), `advice` is one sentence on what to do.
    """

    def __init__(
        self,
        reason: Reason,
        field: str,
        problem: str,
        advice: str,
        *,
        limit: float | str | None = None,
        actual: float | str | None = None,
    ) -> None:
        super().__init__(f"{field}: {problem} {advice}")
        self.reason = reason
        self.field = field
        self.problem = problem
        self.advice = advice
        self.limit = limit
        self.actual = actual


class RegionError(ImageError):
    """A region that does not fit its image or the segmenter's classes."""
