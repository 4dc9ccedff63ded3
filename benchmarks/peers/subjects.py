"""The peers: how each is installed and started on the same graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.sections.oip import MODEL
from benchmarks.server_process import ROOT, Served, free_port, running

HERE = Path(__file__).parent
ENVIRONMENTS = ROOT / ".venv-peers"
MAX_BATCH = 8
# MLServer's batcher waits for company up to so long; its documentation's examples wait longer.
BATCH_WAIT_S = 0.01


@dataclass(frozen=True)
class Start:
    """A command, and the environment and folder that it wants."""

    command: list[str]
    env: dict[str, str]
    cwd: Path


@dataclass(frozen=True)
class Peer:
    """Another server. `start` is given the graph, a free folder, and the port for gRPC."""

    name: str
    title: str
    start: Callable[[Path, Path, int], Start]
    goal: float  # ours against it, at 8 and 32 callers

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return ENVIRONMENTS / self.name / "bin" / "python"

    def install(self) -> None:
        """Make its environment where its requirements are newer; raises CalledProcessError."""
        requirements = HERE / f"requirements-{self.name}.txt"
        stamp = ENVIRONMENTS / self.name / ".complete"
        if stamp.exists() and stamp.stat().st_mtime >= requirements.stat().st_mtime:
            return
        print(f"Installing {self.title} into {self.python.parents[1]} …", file=sys.stderr)
        if not self.python.exists():
            command = [sys.executable, "-m", "venv", str(self.python.parents[1])]
            subprocess.run(command, check=True)
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        stamp.touch()

    @contextmanager
    def serving(self, bundle: Path) -> Iterator[Served]:
        """Runs it for the block on the bundle's generator."""
        with TemporaryDirectory() as folder:
            port = free_port()
            start = self.start(bundle.resolve() / f"{MODEL}.onnx", Path(folder), port)
            env = {**os.environ, **start.env}
            address = f"127.0.0.1:{port}"
            with running(start.command, address, env=env, cwd=start.cwd, drains=False) as served:
                yield served


def _mlserver(graph: Path, folder: Path, port: int) -> Start:
    settings = {
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": free_port(),
        "metrics_port": free_port(),
        "debug": False,
    }
    model = {
        "name": MODEL,
        "implementation": "mlserver_runtime.Generator",
        "max_batch_size": MAX_BATCH,
        "max_batch_time": BATCH_WAIT_S,
        "parameters": {"uri": str(graph)},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    program = ENVIRONMENTS / "mlserver" / "bin" / "mlserver"
    return Start([str(program), "start", str(folder)], {"PYTHONPATH": str(HERE)}, folder)


def _pytriton(graph: Path, folder: Path, port: int) -> Start:
    ports = [str(port), str(free_port()), str(free_port())]
    program = [str(ENVIRONMENTS / "pytriton" / "bin" / "python"), str(HERE / "pytriton_server.py")]
    # Triton's Python backend looks for libpython, and finds a foreign one without being told.
    library = {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
    return Start([*program, str(graph), MODEL, *ports, str(folder / "triton")], library, folder)


def _ray(graph: Path, folder: Path, port: int) -> Start:
    program = [str(ENVIRONMENTS / "ray" / "bin" / "python"), str(HERE / "ray_server.py")]
    env = {"PYTHONPATH": str(ROOT / "protos"), "RAY_USAGE_STATS_ENABLED": "0"}
    return Start([*program, str(graph), MODEL, str(port), str(free_port())], env, folder)


PEERS = (
    Peer("pytriton", "Triton by PyTriton", _pytriton, 1.15),
    Peer("mlserver", "MLServer", _mlserver, 1.4),
    Peer("ray", "Ray Serve", _ray, 2.0),
)
