"""Whom the deadline lets in: new calls, and those that come again as they were told."""

from __future__ import annotations

import pytest

from velatura.server.engine.admission import (
    KEPT_FOR_RETURNING,
    KEPT_S,
    MIN_RETRY_S,
    Admission,
    BatchLimits,
    Load,
)
from velatura.server.engine.errors import QueueFull
from velatura.server.engine.gate import Backlog

DEADLINE_S = 1.0


def admission() -> Admission:
    made = Admission("m", BatchLimits(), Backlog())
    made.observed(0.0)
    return made


def ahead(wait_s: float) -> Load:
    """So much to wait for, and a run of no time."""
    return Load(
        queued_items=1, queued_bytes=4, drain_s=wait_s, wait_s=wait_s, run_s=0.0, idle=False
    )


def longest(asked: Admission, now: float, *, returning: bool = False) -> float:
    """The longest wait that a call is let in with, to the millisecond; asking turns nobody away
    before the answer is known.
    """
    for milliseconds in range(1000):
        try:
            asked.check_deadline(
                now + DEADLINE_S, ahead(milliseconds / 1000), now, returning=returning
            )
        except QueueFull:
            return (milliseconds - 1) / 1000
    return DEADLINE_S


def test_nothing_is_kept_while_nobody_is_turned_away() -> None:
    assert longest(admission(), 0.0) == longest(admission(), 0.0, returning=True)


def test_after_a_refusal_time_is_kept_for_who_comes_again() -> None:
    asked = admission()
    all_of_it = longest(asked, 0.0)  # its last question was refused
    assert longest(asked, 0.1, returning=True) == all_of_it
    assert longest(asked, 0.2) == pytest.approx(all_of_it * (1 - KEPT_FOR_RETURNING), abs=0.002)
    assert longest(asked, 0.2 + KEPT_S) == all_of_it


def test_who_lacks_only_what_is_kept_is_told_so_and_gets_in_when_returning() -> None:
    asked = admission()
    wait = longest(asked, 0.0) - 0.01
    with pytest.raises(QueueFull, match="kept for calls that come again as told") as caught:
        asked.check_deadline(0.1 + DEADLINE_S, ahead(wait), 0.1)
    assert caught.value.retry_after_s == MIN_RETRY_S
    asked.check_deadline(0.2 + DEADLINE_S, ahead(wait), 0.2, returning=True)


def test_nothing_is_kept_from_who_need_not_wait() -> None:
    asked = admission()
    longest(asked, 0.0)
    idle = Load(queued_items=0, queued_bytes=0, drain_s=0.0, wait_s=0.0, run_s=0.99, idle=True)
    asked.check_deadline(0.1 + DEADLINE_S, idle, 0.1)
