"""A server that goes on working does not go on growing: whatever a request leaves behind would be
left behind in every round.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from velatura.client import Client, Offset, Region, VelaturaError

from ..running import RunningServer, file_of, picture
from .conftest import Names, client_of

WARM_UP, ROUNDS, REQUESTS = 60, 3, 50
SIDES = (160, 384, 640)
MIB = 1024 * 1024
# The decoded pictures of a round have about 15 MiB together, and their floats four times as much.
# Requests that happen to meet take more memory than any that met before, so one round may well grow
# by more than this; a leak does so in all of them.
LEAST_GROWTH_MIB = 10


def test_memory_does_not_grow_with_requests(
    start: Callable[..., RunningServer],
    names: Names,
    record_property: Callable[[str, object], None],
) -> None:
    server = start("--cache-mib", "0")  # which are meant to fill
    resident = []
    with client_of(server) as client, ThreadPoolExecutor(6) as threads:
        first = 0
        for count in (WARM_UP, *[REQUESTS] * ROUNDS):
            span = range(first, first + count)
            list(threads.map(lambda n: request(client, names, n), span))
            resident.append(resident_mib(server))
            first = span.stop
    growth = [after - before for before, after in itertools.pairwise(resident)]
    record_property("growth_mib", growth)
    assert server.total("grpc_server_handled_total") >= first
    assert min(growth) < LEAST_GROWTH_MIB, [f"{mib:.0f} MiB" for mib in resident]


def request(client: Client, names: Names, n: int) -> None:
    """The n-th request: half edits at any size, the rest mixed; one in ten fails."""
    rng = random.Random(n)
    side, edits = rng.choice(SIDES), Offset((0, names.num_ws), 0.3)
    image = picture(side, side * 3 // 4, n)
    match n % 10:
        case 0:
            with contextlib.suppress(VelaturaError):
                client.edit_image(file_of(image)[:-300], edits)
        case 1:
            client.stylize(picture(96, 64, n), rng.choice(names.styles))
        case 2:
            client.stylize(picture(96, 96, n), picture(128, 128, n + 1))
        case 3:
            client.segment(image, with_overlay=True)
        case 4:
            list(client.generate(range(n, n + 2)))
        case 5:
            client.encode(image, with_reconstruction=True)
        case 6:
            client.edit_image(file_of(image, "JPEG"), edits, region=rng.choice(names.classes))
        case _:
            client.edit_image(image, edits, region=Region((5, 5, 50, 40), feather_px=4))


def resident_mib(server: RunningServer) -> float:
    """Resident memory at rest: the least of a few looks."""
    looks = []
    for _ in range(5):
        looks.append(server.metrics()["process_resident_memory_bytes"] / MIB)
        time.sleep(0.2)
    return min(looks)
