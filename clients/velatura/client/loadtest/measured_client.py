"""The blocking client, with a stopwatch: every call is told to a listener as it ends."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from velatura.client.channel import NO_RETRY, Options, Timeout, Tls
from velatura.client.errors import VelaturaError
from velatura.client.loadtest.ledger import Call
from velatura.client.loadtest.plan import Plan
from velatura.client.requests import Operation, Response, Result
from velatura.client.sync_client import Client

Listener = Callable[[Call], None]


class MeasuredClient(Client):
    """A `Client` with a connection of its own and without retries, so that each refusal is seen.

    A call that is abandoned (its greenlet is killed) is not told: it has no outcome.
    """

    def __init__(self, plan: Plan, listener: Listener) -> None:
        tls: Tls | bool = Tls(root_certificates=plan.ca) if plan.ca else plan.tls
        super().__init__(
            plan.target, timeout=plan.timeout_s, api_key=plan.api_key, tls=tls, retry=NO_RETRY
        )
        self._listener = listener
        self._session = ""

    def within(self, session: str) -> Self:
        """The same client, with calls that are named after a session: "EditImage (slider)"."""
        view = copy.copy(self)
        view._session = f" ({session})"
        return view

    def _channel_options(self) -> Options:
        # Channels to one address share a connection otherwise, and one connection is what a load
        # balancer sends to one server.
        return [*super()._channel_options(), ("grpc.use_local_subchannel_pool", 1)]

    def _call(self, operation: Operation[Response, Result], timeout: Timeout) -> Result:
        response_bytes = 0

        def parse(response: Response) -> Result:
            nonlocal response_bytes
            response_bytes = response.ByteSize()
            return operation.parse(response)

        name = operation.method.rpartition("/")[2] + self._session
        begin = time.perf_counter()
        try:
            result = super()._call(replace(operation, parse=parse), timeout)
        except VelaturaError as error:
            seconds = time.perf_counter() - begin
            self._listener(Call(name, seconds, 0, failure_of(error)))
            raise
        seconds = time.perf_counter() - begin
        self._listener(Call(name, seconds, response_bytes, wrong_with(result)))
        return result


def failure_of(error: VelaturaError) -> str:
    """Status and reason: what failures are counted by, without texts that differ each time."""
    return f"{error.status.name} {error.reason}".strip()


def wrong_with(result: object) -> str:
    """Empty, or how an answer breaks the promise that nothing outside the region changes."""
    outside = getattr(result, "max_difference_outside", None)
    return "WRONG_ANSWER changed outside the region" if outside else ""
