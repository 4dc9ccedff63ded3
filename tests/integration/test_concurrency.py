"""Thirty-two callers at once: batches form, nothing fails, and everyone gets their own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from velatura.client import NO_RETRY, AsyncClient, Client, Offset

from ..running import RunningServer, picture
from .arrays import Samples, array_of, closest_pair, largest_difference
from .calls import SIDE, operations, same
from .conftest import TIMEOUT_S, Names
from .counting import Watch

CALLERS = 32
ROUNDS = 2


@pytest.mark.parametrize("name", ["edit", "generate"])
def test_callers_get_their_own_answer_from_shared_batches(
    server: RunningServer,
    client: Client,
    names: Names,
    name: str,
    record_property: Callable[[str, object], None],
) -> None:
    send = operations(names)[name].send
    references = [send(client, n) for n in range(CALLERS)]
    assert closest_pair(references) > 4  # so that a mix-up would be seen

    watch = Watch(server)
    start = Barrier(CALLERS)

    def caller(n: int) -> list[Samples]:
        start.wait()
        return [send(client, n) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(CALLERS) as threads:
        answers = list(threads.map(caller, range(CALLERS)))

    for reference, own in zip(references, answers, strict=True):
        assert [largest_difference(reference, answer) <= 1 for answer in own] == [True] * ROUNDS
    assert watch.by_code() == {"OK": CALLERS * ROUNDS}
    generator = watch.batches(names.synthesis)
    items = 2 if name == "edit" else 1  # an edit decodes the image before and after
    assert generator.items == items * CALLERS * ROUNDS
    record_property("mean_batch_size", generator.mean)
    assert generator.mean > 2
    assert generator.mean > 1.5 * items  # requests shared batches, not only the items of one


def test_asyncio_callers_get_their_own_answer(
    server: RunningServer, client: Client, names: Names
) -> None:
    edits = Offset((0, names.num_ws), 0.4)
    pictures = [picture(SIDE + n, SIDE, 300 + n) for n in range(CALLERS)]
    references = [array_of(client.edit_image(each, edits).image) for each in pictures]

    async def all_at_once() -> list[Samples]:
        async with AsyncClient(server.address, timeout=TIMEOUT_S, retry=NO_RETRY) as shared:
            results = await asyncio.gather(*(shared.edit_image(each, edits) for each in pictures))
            return [array_of(result.image) for result in results]

    watch = Watch(server)
    answers = asyncio.run(all_at_once())
    # Every picture has a width of its own, so that even the sizes tell a mix-up.
    assert all(largest_difference(*pair) <= 1 for pair in zip(references, answers, strict=True))
    assert watch.by_code() == {"OK": CALLERS}
    assert watch.batches(names.synthesis).mean > 2
    assert watch.batches(names.encoder).mean > 1.5


def test_callers_of_all_services_do_not_get_in_each_others_way(
    server: RunningServer, client: Client, names: Names
) -> None:
    every = list(operations(names).values())
    work = [(every[n % len(every)], n) for n in range(CALLERS)]
    references = [operation.send(client, n) for operation, n in work]

    watch = Watch(server)
    start = Barrier(CALLERS)

    def caller(n: int) -> Samples:
        start.wait()
        operation, number = work[n]
        return operation.send(client, number)

    with ThreadPoolExecutor(CALLERS) as threads:
        answers = list(threads.map(caller, range(CALLERS)))

    for (operation, _), reference, answer in zip(work, references, answers, strict=True):
        assert same(operation.name, reference, answer), operation.name
    assert watch.by_code() == {"OK": CALLERS}
