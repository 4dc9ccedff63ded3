"""What the server counts is what its callers saw."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from velatura.client import NO_RETRY, AsyncClient, Client, Offset, VelaturaError

from ..running import RunningServer, file_of, picture
from .conftest import TIMEOUT_S, Names
from .counting import Watch

STARTED = "grpc_server_started_total"
HANDLED = "grpc_server_handled_total"
SECONDS = "grpc_server_handling_seconds_count"


def test_handled_calls_are_those_that_the_callers_saw(
    server: RunningServer, client: Client, names: Names
) -> None:
    face, edits = picture(96, 80), Offset((0, 4), 0.5)
    torn = file_of(face)[:200]
    kinds: dict[str, list[Callable[[], object]]] = {
        "EditImage": [
            lambda: client.edit_image(face, edits),
            lambda: client.edit_image(face, {"no such direction": 1.0}),
            lambda: client.edit_image(face, {names.directions[0]: 11.0}),
            lambda: client.edit_image(torn, edits),
            lambda: client.edit_image(face, edits, latent_token=b"not a token"),
        ],
        "Stylize": [
            lambda: client.stylize(face, names.styles[0]),
            lambda: client.stylize(face, "no such style"),
            lambda: client.stylize(face, names.styles[0], region=(500, 500, 9, 9)),
        ],
        "Segment": [lambda: client.segment(face), lambda: client.segment(face, model="none")],
        "Encode": [lambda: client.encode(face), lambda: client.encode(torn)],
        "Generate": [
            lambda: list(client.generate([1, 2, 3])),
            lambda: list(client.generate(1, truncation_psi=99.0)),
        ],
    }
    watch = Watch(server)
    calls = [(method, call) for method, some in kinds.items() for call in some] * 3

    def code_of(call: Callable[[], object]) -> str:
        try:
            call()
        except VelaturaError as error:
            return str(error.status.name)
        return "OK"

    with ThreadPoolExecutor(6) as threads:
        codes = list(threads.map(code_of, [call for _, call in calls]))

    seen = Counter(codes)
    assert len(seen) >= 3  # OK and at least two kinds of failure
    assert seen["OK"] == 3 * len(kinds)
    assert watch.by_code() == seen
    for method in kinds:
        own = Counter(code for (name, _), code in zip(calls, codes, strict=True) if name == method)
        assert watch.by_code(method) == own
    assert watch.total(STARTED) == watch.total(SECONDS) == len(calls)
    assert server.total("grpc_server_in_flight") == 0


def test_items_of_the_networks_are_those_of_the_requests(
    server: RunningServer, client: Client, names: Names
) -> None:
    face = picture(96, 80)
    watch = Watch(server)
    for _ in range(3):
        client.edit_image(face, Offset((0, 4), 0.5))  # 1 encoded, 2 decoded
        client.encode(face)  # 1 encoded
        client.encode(face, with_reconstruction=True)  # 1 encoded, 1 decoded
        list(client.generate([4, 5]))  # 2 decoded
    assert watch.batches(names.encoder).items == 9
    assert watch.batches(names.synthesis).items == 15
    requests = "velatura_model_requests_total"
    assert watch.total(requests, model=names.encoder, outcome="ok") == 9
    assert watch.total(requests, model=names.encoder) == 9
    assert server.total("velatura_queue_depth") == server.total("velatura_queue_bytes") == 0


def test_calls_that_are_given_up_are_counted_once(
    server: RunningServer, client: Client, names: Names
) -> None:
    face, edits = picture(96, 80), Offset((0, 4), 0.5)

    async def some_give_up() -> Counter[str]:
        async with AsyncClient(server.address, timeout=TIMEOUT_S, retry=NO_RETRY) as caller:
            tasks = [asyncio.ensure_future(caller.edit_image(face, edits)) for _ in range(24)]
            await asyncio.sleep(0.15)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        return Counter("OK" if not isinstance(each, BaseException) else "gone" for each in results)

    watch = Watch(server)
    seen = asyncio.run(some_give_up())
    assert seen["OK"] >= 12  # nobody else suffered

    deadline = time.monotonic() + 30
    while server.total("grpc_server_in_flight") and time.monotonic() < deadline:
        time.sleep(0.05)
    codes = watch.by_code()
    assert watch.total(STARTED) == watch.total(HANDLED) == codes.total()
    # A caller may give up while the answer is on its way: then it is the server's OK all the same.
    assert set(codes) <= {"OK", "CANCELLED"}
    assert seen["OK"] <= codes["OK"]
    assert codes.total() <= 24
    assert client.edit_image(face, edits).max_difference_outside == 0
