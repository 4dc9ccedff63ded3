"""A request is answered the same alone and in a batch of eight, and eight really ran together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from velatura.client import Client

from ..running import RunningServer
from .arrays import Samples, closest_pair
from .calls import Operation, operations, same
from .conftest import Names, client_of
from .counting import Watch

EIGHT = 8
# A machine busy with other things may deliver a caller's picture too late for the batch.
ATTEMPTS = 3


@pytest.mark.parametrize(
    "name", ["edit", "encode", "segment", "stylize-preset", "stylize-picture", "generate"]
)
def test_alone_and_in_a_batch_of_eight_the_answer_is_the_same(
    server: RunningServer, client: Client, gathering: RunningServer, names: Names, name: str
) -> None:
    operation = operations(names)[name]
    watch = Watch(server)
    alone = [operation.send(client, n) for n in range(EIGHT)]
    for network, items in operation.networks.items():
        assert watch.batches(network).of_exactly(items) == EIGHT  # each had a batch to itself
    if name != "segment":
        assert closest_pair(alone) > 4  # so that an answer to another request would be seen

    with client_of(gathering) as together:
        for _ in range(ATTEMPTS):
            watch = Watch(gathering)
            answers = all_at_once(operation, together)
            assert [same(name, *pair) for pair in zip(alone, answers, strict=True)] == [
                True
            ] * EIGHT
            if all(only_full(watch, network, n) for network, n in operation.networks.items()):
                return
    pytest.fail(f"{ATTEMPTS} times eight requests never shared batches of eight")


def all_at_once(operation: Operation, client: Client) -> list[Samples]:
    """Eight requests from eight threads, in the order of their numbers."""
    start = Barrier(EIGHT)

    def call(n: int) -> Samples:
        start.wait()
        return operation.send(client, n)

    with ThreadPoolExecutor(EIGHT) as threads:
        return list(threads.map(call, range(EIGHT)))


def only_full(watch: Watch, network: str, items: int) -> bool:
    """Whether the network ran batches of eight items and no others, `items` for each request."""
    batches = watch.batches(network)
    assert batches.items == EIGHT * items
    return batches.of_exactly(EIGHT) == batches.count == items
