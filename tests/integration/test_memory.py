"""Two hundred mixed requests leave no more memory behind than a warm server already has."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from velatura.client import Client, Offset, Region, VelaturaError

from ..running import RunningServer, file_of, picture
from .conftest import Names, client_of

WARM_UP, MEASURED = 100, 200
SIDES = (160, 384, 640)
MIB = 1024 * 1024
# The decoded pictures of the measured requests have about 60 MiB together, and their floats four
# times as much; what a warm server gains besides is a few MiB of its allocators.
MOST_GROWTH_MIB = 40


def test_memory_does_not_grow_with_requests(
    start: Callable[..., RunningServer],
    names: Names,
    record_property: Callable[[str, object], None],
) -> None:
    server = start()
    with client_of(server) as client, ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda n: request(client, names, n), range(WARM_UP)))
        before = resident_mib(server)
        list(threads.map(lambda n: request(client, names, WARM_UP + n), range(MEASURED)))
        after = resident_mib(server)
    record_property("growth_mib", after - before)
    assert server.total("grpc_server_handled_total") >= WARM_UP + MEASURED
    assert after - before < MOST_GROWTH_MIB, f"from {before:.0f} to {after:.0f} MiB"


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
