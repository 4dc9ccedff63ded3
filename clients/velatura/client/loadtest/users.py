"""Locust's side: users that keep a closed loop, and one that keeps an open one.

In a closed loop each caller waits for its answer before it asks again, so that a slow server is
asked less. In an open loop callers arrive by the clock, however long those before them take: each
arrival has a greenlet of its own, and what piles up is seen. (Locust's `constant_throughput` paces
a fixed number of users, and so falls back to a closed loop as soon as all of them wait.)
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, ClassVar

import gevent
from gevent.pool import Group
from locust import User
from locust.runners import STATE_RUNNING, STATE_SPAWNING

from velatura.client.errors import VelaturaError
from velatura.client.loadtest.arrivals import gaps
from velatura.client.loadtest.ledger import Call
from velatura.client.loadtest.plan import Kind
from velatura.client.loadtest.stage import Stage

_LEAST_PAUSE_S, _GREATEST_PAUSE_S = 0.1, 5.0


class _Caller(User):
    """What both loops share: a client, a source of chance, and the actions."""

    abstract = True
    stage: ClassVar[Stage]
    _numbers: ClassVar[Iterator[int]]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.number = next(self._numbers)
        self.rng = Random(f"{self.stage.plan.seed} {self.number}")

    def stopping(self) -> bool:
        """Whether the test is being stopped."""
        return self.environment.runner.state not in {STATE_SPAWNING, STATE_RUNNING}

    def act(self, kind: Kind, rng: Random) -> VelaturaError | None:
        """Do one action to its end; the error of a call that failed."""
        try:
            self.stage.actions.do(kind, self.stage.next_client(), rng, self.stopping)
        except VelaturaError as error:
            return error
        return None


class ClosedLoop(_Caller):
    """A caller that asks, waits for the answer, thinks, and asks again."""

    abstract = True

    def wait_time(self) -> float:
        return self.stage.plan.think_s

    def run_action(self, kind: Kind) -> None:
        error = self.act(kind, self.rng)
        if error is not None:  # as a well-behaved caller does, which a dead server sees a lot of
            pause = error.retry_after or _LEAST_PAUSE_S
            gevent.sleep(min(max(pause, _LEAST_PAUSE_S), _GREATEST_PAUSE_S))


class OpenLoop(_Caller):
    """The street from which callers arrive by the clock."""

    abstract = True

    def on_start(self) -> None:
        self.in_flight = Group()
        self.gaps = gaps(self.stage.plan.rate or 1.0, self.stage.plan.arrivals, self.rng)
        self.due = time.perf_counter()

    def on_stop(self) -> None:
        """Let those that are in finish; their deadline bounds the wait."""
        self.in_flight.join(timeout=self.stage.plan.timeout_s)
        self.in_flight.kill()

    def wait_time(self) -> float:
        """Seconds until the next arrival; those that are overdue come at once."""
        self.due += next(self.gaps)
        return max(0.0, self.due - time.perf_counter())

    def run_action(self, kind: Kind) -> None:
        self.stage.ledger.lateness.append(max(0.0, time.perf_counter() - self.due))
        if len(self.in_flight) >= self.stage.plan.max_in_flight:
            self.stage.tell(Call("arrival", 0.0, 0, "NOT_SENT max-in-flight reached"))
            return
        # A generator of its own: arrivals run side by side, and in another order each time.
        self.in_flight.spawn(self.act, kind, Random(self.rng.random()))


def user_class(stage: Stage) -> type[User]:
    """The plan's kind of user, bound to the stage; its tasks are the mix."""
    loop: type[_Caller] = ClosedLoop if stage.plan.rate is None else OpenLoop
    tasks = {_task(kind): weight for kind, weight in stage.plan.mix.items()}
    name = "Caller" if stage.plan.rate is None else "Arrivals"
    members = {"stage": stage, "tasks": tasks, "abstract": False, "_numbers": itertools.count()}
    return type(name, (loop,), members)


def _task(kind: Kind) -> Callable[[Any], None]:
    def run(user: ClosedLoop | OpenLoop) -> None:
        user.run_action(kind)

    run.__name__ = kind.value  # the name in Locust's page and report
    return run
