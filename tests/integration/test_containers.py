"""Each container's command line, read from the compose file and its Dockerfile, runs as written,
outside a container: only ports, paths and names of hosts are other ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from velatura_ops.compose import ROOT, command_of, environment_of, services
from velatura_ops.local_prometheus import (
    ADVICE,
    adapted_command,
    adapted_config,
    program,
    prometheus,
)
from velatura_ops.processes import free_port

BIN = Path(sys.executable).parent
LOADTEST = [ROOT / ".venv-load/bin", BIN]  # where its program may be


def container_environment(service: str, **replaced: str) -> dict[str, str]:
    """A container's variables, with nothing of this shell's but what finds programs."""
    kept = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "LANG": "C.UTF-8"}
    declared = environment_of(service)
    assert replaced.keys() <= declared.keys(), "only what the container sets can be replaced"
    del declared["PATH"]
    # A container has no home that it may write to.
    return declared | {"HOME": "/nonexistent"} | kept | replaced


@dataclass
class Container:
    """The server's container, without the container."""

    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path

    def probe(self) -> int:
        """The exit code of the compose file's own health check."""
        test = services()["server"]["healthcheck"]["test"]
        assert test[0] == "CMD"
        return run(test[1:], self.environment).returncode


def run(
    command: Sequence[str], environment: dict[str, str], timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]) if command[0] == "python" else command[0], *command[1:]],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture
def server(bundle_path: Path, tmp_path: Path) -> Iterator[Container]:
    """Started by its command and healthy by its health check."""
    environment = container_environment(
        "server",
        VELATURA_BUNDLE=str(bundle_path),
        VELATURA_LISTEN=f"0.0.0.0:{free_port()}",
        VELATURA_METRICS_LISTEN=f"0.0.0.0:{free_port()}",
    )
    log = tmp_path / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command_of("server"), env=environment, cwd="/", stdout=stream, stderr=stream
        )
    container = Container(environment, process, log)
    try:
        deadline = time.monotonic() + 120
        while container.probe() != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        yield container
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def port(address: str) -> str:
    return address.rpartition(":")[2]


def test_server_is_healthy_takes_the_load_test_and_stops_in_time(
    server: Container, tmp_path: Path
) -> None:
    # The load test's container, against the server's.
    environment = container_environment(
        "loadtest",
        VELATURA_TARGET=f"127.0.0.1:{port(server.environment['VELATURA_LISTEN'])}",
        VELATURA_LOAD_OUT=str(tmp_path / "out"),
        VELATURA_LOAD_USERS="1",
        VELATURA_LOAD_DURATION_S="3",
    )
    command = command_of("loadtest")
    folders = [folder for folder in LOADTEST if (folder / command[0]).is_file()]
    if not folders:
        pytest.fail(f"{command[0]} is installed neither in {LOADTEST[0]} nor in {LOADTEST[1]}")
    environment["VELATURA_LOAD_WARMUP_S"] = "0"
    outcome = run([str(folders[0] / command[0]), *command[1:]], environment)
    assert outcome.returncode in {0, 1}, outcome.stdout + outcome.stderr  # 1: a slow machine
    assert (tmp_path / "out/report.html").stat().st_size > 1000

    grace = services()["server"]["stop_grace_period"]
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(float(grace.removesuffix("s"))) == 0
    assert server.probe() == 1


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has the GPU it asks for")
def test_gpu_server_refuses_to_start_without_a_gpu(bundle_path: Path) -> None:
    environment = container_environment(
        "server-gpu",
        VELATURA_BUNDLE=str(bundle_path),
        VELATURA_LISTEN="127.0.0.1:0",
        VELATURA_METRICS_LISTEN="127.0.0.1:0",
    )
    outcome = run(command_of("server-gpu"), environment)
    assert outcome.returncode == 1
    assert "CUDA" in outcome.stdout + outcome.stderr


@pytest.mark.skipif(program() is None, reason=f"prometheus is not installed: {ADVICE}")
def test_prometheus_runs_with_the_compose_files_arguments(tmp_path: Path) -> None:
    own = f"127.0.0.1:{free_port()}"
    with prometheus(tmp_path, "127.0.0.1:9", own) as asked:
        flags = asked.get("status/flags")
        for argument in services()["prometheus"]["command"]:
            name, _, value = argument.removeprefix("--").partition("=")
            if not value.startswith("/"):  # what is no path is as written
                assert flags[name] == value
        assert len(asked.get("rules")["groups"]) >= 5
        config = yaml.safe_load(asked.get("status/config")["yaml"])
        assert [job["job_name"] for job in config["scrape_configs"]] == ["velatura", "prometheus"]


def test_prometheus_is_only_told_other_paths_and_targets(tmp_path: Path) -> None:
    command = adapted_command("prometheus", tmp_path / "c.yml", tmp_path / "data", "127.0.0.1:1")
    written = services()["prometheus"]["command"]
    assert [each.partition("=")[0] for each in command[1:-1]] == [
        each.partition("=")[0] for each in written
    ]
    config = adapted_config("127.0.0.1:2", "127.0.0.1:1")
    assert config["global"]["scrape_interval"] == "5s"
    assert all(Path(file).is_file() for file in config["rule_files"])


@pytest.mark.parametrize("name", ["server", "server-gpu", "loadtest"])
def test_programs_of_the_containers_are_installed_here(name: str) -> None:
    assert any(shutil.which(command_of(name)[0], path=str(folder)) for folder in LOADTEST)
