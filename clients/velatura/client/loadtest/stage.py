"""Everything that the callers of one load test share: connections, pictures, ledger."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from PIL import Image

from velatura.client.loadtest.actions import Actions, Offer
from velatura.client.loadtest.ledger import Call, Ledger
from velatura.client.loadtest.measured_client import MeasuredClient
from velatura.client.loadtest.pictures import Pictures, load_folder
from velatura.client.loadtest.plan import Plan
from velatura.client.sync_client import Client

_SAMPLES = 16
_PREPARE_S = 60.0  # deadline of the calls that prepare the test


class Stage:
    """Set up by `open`, which waits for the server and makes the pictures."""

    def __init__(self, plan: Plan, actions: Actions) -> None:
        self.plan = plan
        self.actions = actions
        self.ledger = Ledger()
        self.listeners: list[Callable[[Call], None]] = [self.ledger.add]
        self._clients: list[MeasuredClient] = []
        self._turns: Iterator[MeasuredClient] = iter(())
        self.connect(plan.target)

    @classmethod
    def open(cls, plan: Plan) -> Stage:
        """Wait until the server is ready, ask what it offers, make the pictures.

        Raises:
            VelaturaError: when the server is not ready in time or refuses.
            ValueError: when it cannot serve the mix, or the pictures cannot be read.
        """
        sources = load_folder(plan.images) if plan.images else []
        with MeasuredClient(replace(plan, timeout_s=_PREPARE_S), Ledger().add) as client:
            client.wait_ready(plan.wait_s)
            offer = Offer.of(client, plan)
            pictures = Pictures(sources or _samples(client, plan), plan.pool, plan.sizes, plan.seed)
        take = pictures.take_distinct if plan.distinct else pictures.take
        return cls(plan, Actions(plan, offer, take, pictures.styles))

    def connect(self, target: str) -> None:
        """Close the connections, if any, and open them to `target`."""
        self.close()
        self.plan = replace(self.plan, target=target)
        self._clients = [MeasuredClient(self.plan, self.tell) for _ in range(self.plan.connections)]
        self._turns = itertools.cycle(self._clients)

    def next_client(self) -> MeasuredClient:
        """The connections in turn."""
        return next(self._turns)

    def tell(self, call: Call) -> None:
        """Tell every listener of a call that ended."""
        for listener in self.listeners:
            listener(call)

    def close(self) -> None:
        """Close the connections; calls in flight are cancelled."""
        for client in self._clients:
            client.close()


def _samples(client: Client, plan: Plan) -> list[Image.Image]:
    """Pictures of the server's own generator, in its domain whatever bundle it serves."""
    first = plan.seed * _SAMPLES
    return [sample.image for sample in client.generate(range(first, first + _SAMPLES))]
