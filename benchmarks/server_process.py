"""A server in a process of its own: started, asked for its metrics, drained at the end."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc
from velatura.server.engine.thread_names import RUNS

ROOT = Path(__file__).resolve().parents[1]
START_S, STOP_S = 120.0, 60.0
POLL_S = 0.01


@dataclass(frozen=True)
class Served:
    """`address` and `metrics` are host:port, `metrics` "" where there are none; `began` is when the
    process was started, on time.perf_counter()'s clock."""

    address: str
    metrics: str
    process: psutil.Process
    began: float

    def cpu_s(self) -> float:
        """CPU seconds that it and its children have used so far."""
        return sum(sum(each.cpu_times()[:2]) for each in self._family())

    def own_cpu_s(self) -> float:
        """CPU seconds of the threads that do not run networks."""
        spent = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            if not (task / "comm").read_text().startswith(RUNS):
                # Nanoseconds on a CPU come first (sched-stats.rst of the kernel's documentation).
                spent += int((task / "schedstat").read_text().split()[0])
        return spent / 1e9

    def rss(self) -> int:
        """Bytes of memory that it and its children hold now."""
        return sum(each.memory_info().rss for each in self._family())

    def _family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def own_server(
    bundle: Path,
    *arguments: str,
    program: Sequence[str] = (str(Path(sys.executable).parent / "velatura-server"),),
    env: dict[str, str] | None = None,
) -> Iterator[Served]:
    """Runs our server for the block and drains it after."""
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = [
        *program, "serve",
        "--listen", address, "--metrics-listen", metrics, "--bundle", str(bundle), *arguments,
    ]  # fmt: skip
    with running(command, address, metrics, env=env) as served:
        yield served


@contextmanager
def running(
    command: Sequence[str],
    address: str,
    metrics: str = "",
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    drains: bool = True,
) -> Iterator[Served]:
    """Runs a command that serves `address` for the block, and ends it by SIGTERM, after which it
    exits with 0 where it `drains`. Its log is shown where something went wrong."""
    # A file and not a pipe: a server that waits for its log to be read would be measured waiting.
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=cwd)
        good = False
        try:
            yield Served(address, metrics, psutil.Process(server.pid), began)
            good = True
        finally:
            code = _stop(server)
            if not good or (drains and code != 0):
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace")[-4000:])


def wait_ready(served: Served, model: str = "", timeout_s: float = START_S) -> float:
    """Seconds from the start of the process until it says that it (or one network) is ready; raises
    RuntimeError where it ends or takes longer than `timeout_s`."""
    with grpc.insecure_channel(served.address, options=CHANNEL) as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        while time.perf_counter() - served.began < timeout_s:
            if served.process.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError(f"the server for {served.address} ended before it was ready")
            try:
                if model:
                    ready = stub.ModelReady(oip.ModelReadyRequest(name=model), timeout=5).ready
                else:
                    ready = stub.ServerReady(oip.ServerReadyRequest(), timeout=5).ready
                if ready:
                    return time.perf_counter() - served.began
            except grpc.RpcError:
                pass
            time.sleep(POLL_S)
    raise RuntimeError(f"the server at {served.address} was not ready after {timeout_s:g} s")


# gRPC waits a second after a refused connection, which would be measured as part of the start.
CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 20),
    ("grpc.enable_http_proxy", 0),
]


def samples(served: Served) -> dict[str, float]:
    """Every sample of its metrics by name with labels; empty where it has none."""
    if not served.metrics:
        return {}
    with urllib.request.urlopen(f"http://{served.metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    pairs = (line.partition(" # ")[0].rsplit(" ", 1) for line in lines if line[:1] not in ("#", ""))
    return {name: float(value) for name, value in pairs}


def batches(served: Served) -> dict[str, tuple[float, float]]:
    """Items and batches that each network has run since the start."""
    return batches_of(samples(served))


def batches_of(values: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Items and batches by network, out of all samples."""
    found: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        match = re.match(r'velatura_batch_size_(sum|count)\{.*?model="([^"]+)"', name)
        if match:
            row = found.setdefault(match[2], {})
            row[match[1]] = row.get(match[1], 0.0) + value
    return {model: (row.get("sum", 0.0), row.get("count", 0.0)) for model, row in found.items()}


def _stop(server: subprocess.Popen[bytes]) -> int:
    if server.poll() is None:
        server.terminate()
    try:
        return server.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()
