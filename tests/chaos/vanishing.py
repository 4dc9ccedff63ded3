"""Clients that vanish: a program that starts them, lets each get into the middle of its calls, and
kills it without a goodbye.

    python vanishing.py ADDRESS SECONDS CLIENTS_A_SECOND

Every client is a process of its own, forked before any channel exists, and ends by SIGKILL: its
sockets close, and nothing else tells the server. Prints how many there were.
"""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
from PIL import Image

from velatura.v1 import (
    edit_pb2,
    edit_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    image_pb2,
    segment_pb2,
    segment_pb2_grpc,
    stylize_pb2,
    stylize_pb2_grpc,
)

Call = Callable[[grpc.Channel, random.Random], Any]


def image(rng: random.Random) -> image_pb2.Image:
    """A small picture that nobody else sends."""
    noise = Image.frombytes("RGB", (8, 8), rng.randbytes(192))
    buffer = io.BytesIO()
    noise.resize((rng.randint(64, 200), 96)).save(buffer, "PNG")
    return image_pb2.Image(encoded=buffer.getvalue())


def edit(channel: grpc.Channel, rng: random.Random) -> Any:
    layers = edit_pb2.LayerRange(start=0, end=8)
    offset = edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[rng.random()]))
    request = edit_pb2.EditImageRequest(image=image(rng), edits=[offset])
    return edit_pb2_grpc.EditServiceStub(channel).EditImage.future(request, timeout=60)


def segment(channel: grpc.Channel, rng: random.Random) -> Any:
    request = segment_pb2.SegmentRequest(image=image(rng))
    return segment_pb2_grpc.SegmentServiceStub(channel).Segment.future(request, timeout=60)


def stylize(channel: grpc.Channel, rng: random.Random) -> Any:
    style = stylize_pb2.StyleSource(image=image(rng))
    request = stylize_pb2.StylizeRequest(content=image(rng), styles=[style])
    return stylize_pb2_grpc.StyleServiceStub(channel).Stylize.future(request, timeout=60)


def generate(channel: grpc.Channel, rng: random.Random) -> Any:
    """A stream that is read once, and then no more."""
    request = generate_pb2.GenerateRequest(seeds=[rng.getrandbits(32) for _ in range(24)])
    stream = generate_pb2_grpc.GenerateServiceStub(channel).Generate(request, timeout=60)
    next(stream)
    return stream


# The same picture for all of a moment's clients: one that leads others, and vanishes.
def shared(channel: grpc.Channel, _: random.Random) -> Any:
    return edit(channel, random.Random(int(time.monotonic())))


CALLS: tuple[Call, ...] = (edit, edit, shared, segment, stylize, generate)


def client(address: str, seed: int) -> None:
    """One client's life: three calls on their way at every time, until it is killed."""
    rng = random.Random(seed)
    channel = grpc.insecure_channel(address)
    calls = [call(channel, rng) for call in rng.sample(CALLS, 3)]
    while True:
        time.sleep(0.005)
        calls = [rng.choice(CALLS)(channel, rng) if call.done() else call for call in calls]


def main(address: str, seconds: float, per_second: int) -> int:
    """Start clients and kill them; how many there were."""
    end, alive, count = time.monotonic() + seconds, [], 0
    rng = random.Random(1)
    while time.monotonic() < end:
        begun = time.monotonic()
        for _ in range(per_second):
            count += 1
            pid = os.fork()
            if pid == 0:
                client(address, count)
            alive.append((begun + rng.uniform(0.05, 0.95), pid))
        for due, pid in sorted(alive):
            time.sleep(max(0.0, due - time.monotonic()))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        alive.clear()
        time.sleep(max(0.0, begun + 1 - time.monotonic()))
    return count


if __name__ == "__main__":
    print(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
