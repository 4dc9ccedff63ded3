"""Who comes again as told is known again, and nobody else is."""

from __future__ import annotations

from typing import Any

import pytest

from velatura.server.rpc import turned_away
from velatura.server.rpc.turned_away import KEPT_S, MOST, TurnedAway


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(turned_away, "time", made)
    return made


def test_who_waits_as_told_is_known_once(clock: Clock) -> None:
    known = TurnedAway()
    known.told("a", 2.0)
    clock.now += 2.0
    assert not known.comes_as_told("b")
    assert known.comes_as_told("a")
    assert not known.comes_as_told("a")


def test_who_comes_too_early_has_lost_it(clock: Clock) -> None:
    known = TurnedAway()
    known.told("a", 2.0)
    clock.now += 1.9
    assert not known.comes_as_told("a")
    clock.now += 0.1
    assert not known.comes_as_told("a")


def test_timers_may_be_a_little_early(clock: Clock) -> None:
    known = TurnedAway()
    known.told("a", 0.05)
    clock.now += 0.045
    assert known.comes_as_told("a")


def test_who_does_not_come_is_forgotten(clock: Clock) -> None:
    known = TurnedAway()
    known.told("a", 1.0)
    clock.now += KEPT_S + 1.0
    assert not known.comes_as_told("a")


def test_no_more_are_remembered_than_there_is_room_for(clock: Clock) -> None:
    known: Any = TurnedAway()
    for number in range(MOST + 10):
        known.told(str(number), 0.0)
    assert len(known._due) == MOST
    assert not known.comes_as_told("0")
    assert known.comes_as_told(str(MOST))
