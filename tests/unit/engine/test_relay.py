"""Who begins when: never more CPUs than there are, in order, on the thread that ends a run."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velatura.server.engine.relay import Relay, Ticket


class Runs:
    """What a relay has begun."""

    def __init__(self, cpus: int | None) -> None:
        self.relay = Relay(cpus)
        self.begun: list[str] = []
        self.tickets: dict[str, Ticket] = {}

    def start(self, name: str, threads: int = 1) -> None:
        self.tickets[name] = Ticket(threads, lambda: self.begun.append(name))
        self.relay.start(self.tickets[name])

    def end(self, name: str) -> None:
        self.relay.end(self.tickets[name])


def test_what_does_not_fit_begins_when_a_run_ends() -> None:
    runs = Runs(cpus=2)
    for name in "abcd":
        runs.start(name)
    assert runs.begun == ["a", "b"]
    runs.end("b")
    assert runs.begun == ["a", "b", "c"]
    runs.end("b")  # again: nothing more is free for it
    assert runs.begun == ["a", "b", "c"]
    runs.end("a")
    assert runs.begun == ["a", "b", "c", "d"]


def test_a_wide_run_waits_for_all_and_nobody_passes_it() -> None:
    runs = Runs(cpus=2)
    runs.start("narrow")
    runs.start("wide", threads=2)
    runs.start("late")
    assert runs.begun == ["narrow"]
    runs.end("narrow")
    assert runs.begun == ["narrow", "wide"]
    runs.end("wide")
    assert runs.begun == ["narrow", "wide", "late"]


def test_alone_even_the_widest_begins() -> None:
    runs = Runs(cpus=1)
    runs.start("wide", threads=4)
    assert runs.begun == ["wide"]


def test_who_is_given_up_on_before_it_begins_never_does() -> None:
    runs = Runs(cpus=1)
    for name in "abc":
        runs.start(name)
    runs.end("b")
    runs.end("a")
    assert runs.begun == ["a", "c"]


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_without_cpus_everybody_begins_at_once(threads: int) -> None:
    runs = Runs(cpus=None)
    for name in "abc":
        runs.start(name, threads)
    assert runs.begun == ["a", "b", "c"]


@given(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=40))
def test_threads_begin_all_and_never_too_many(cpus: int, widths: list[int]) -> None:
    relay, lock = Relay(cpus), threading.Lock()
    running: list[int] = []
    done: list[int] = []
    crowds: list[list[int]] = []
    finished = threading.Event()
    pool = ThreadPoolExecutor(8)

    def run(number: int) -> None:
        with lock:
            running.append(widths[number])
            crowds.append(list(running))
        time.sleep(0)
        with lock:
            running.remove(widths[number])
            done.append(number)
            if len(done) == len(widths):
                finished.set()
        relay.end(tickets[number])

    def ticket(number: int) -> Ticket:
        def launch() -> None:
            pool.submit(run, number)

        return Ticket(widths[number], launch)

    tickets = [ticket(number) for number in range(len(widths))]
    for each in tickets:
        relay.start(each)
    assert finished.wait(20)
    pool.shutdown()
    assert sorted(done) == list(range(len(widths)))
    assert relay.used == 0
    assert all(sum(crowd) <= cpus or len(crowd) == 1 for crowd in crowds)
