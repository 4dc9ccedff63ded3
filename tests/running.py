"""A real server in a process of its own, on free ports; and images to send to it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from velatura.v1 import image_pb2

START_S = 120.0
STOP_S = 60.0
COMMAND = [sys.executable, "-m", "velatura.server.cli"]
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


@dataclass
class RunningServer:
    """`address` and `metrics_address` are host:port; `log` is the file of its JSON lines."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""
    metrics_address: str = ""
    _channels: list[grpc.Channel] = field(default_factory=list)

    def channel(self) -> grpc.Channel:
        """A channel without size limits of its own, closed with the server."""
        channel = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        self._channels.append(channel)
        return channel

    def events(self) -> list[dict[str, Any]]:
        """Its log so far, oldest first; lines that are not JSON as {"raw": line}."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) if line.startswith("{") else {"raw": line} for line in lines]

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by name with labels, as Prometheus writes them."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def total(self, metric: str, **labels: str) -> float:
        """Sum of a metric's samples that carry the labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for name, value in self.metrics().items()
            if name.partition("{")[0] == metric and all(label in name for label in wanted)
        )

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Exit code."""
        return self.process.wait(timeout_s)

    def stop(self) -> None:
        """End it whatever its state."""
        for channel in self._channels:
            channel.close()
        if self.process.poll() is not None:
            return
        self.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_server(bundle: Path, directory: Path, arguments: Sequence[str] = ()) -> RunningServer:
    """Start a server and wait until it serves."""
    log = directory / "server.log"
    command = [
        *COMMAND, "serve", "--bundle", str(bundle), "--provider", "cpu", "--log-format", "json",
        "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *arguments,
    ]  # fmt: skip
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=clean_environment()
        )
    server = RunningServer(process, log)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        for event in server.events():
            if event.get("event") == "serving":
                server.address, server.metrics_address = event["listen"], event["metrics"]
                return server
        if process.poll() is not None:
            break
        time.sleep(0.05)
    server.stop()
    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')}")


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of the server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VELATURA_")}
    return kept | more


def picture(width: int, height: int, seed: int = 0, alpha: bool = False) -> Image.Image:
    """Smooth coloured blobs, the same for the same seed."""
    rng = np.random.default_rng(seed)
    shape = (max(2, height // 16), max(2, width // 16), 4 if alpha else 3)
    small = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, seed: int = 0, alpha: bool = False) -> image_pb2.Image:
    """`picture` as a PNG in a message."""
    return image_pb2.Image(encoded=file_of(picture(width, height, seed, alpha)))


def opened(image: image_pb2.Image) -> Image.Image:
    """The image in a response."""
    return Image.open(io.BytesIO(image.encoded))


def samples(image: image_pb2.Image) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A response's samples as int16 [H, W, C], ready for differences."""
    return np.asarray(opened(image)).astype(np.int16)
