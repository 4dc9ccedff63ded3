"""The containers' probe tells a serving server from every other one."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from velatura.server import healthcheck

from .repository import run

Status = health_pb2.HealthCheckResponse


@pytest.fixture
def servicer() -> health.HealthServicer:
    return health.HealthServicer()


@pytest.fixture
def target(servicer: health.HealthServicer) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None).wait()


def test_serving(target: str) -> None:
    command = (sys.executable, "-m", "velatura.server.healthcheck")
    outcome = run(*command, env={"VELATURA_LISTEN": target.replace("127.0.0.1", "0.0.0.0")})
    assert (outcome.returncode, outcome.stdout) == (0, "SERVING\n")


def test_draining(
    target: str, servicer: health.HealthServicer, capsys: pytest.CaptureFixture[str]
) -> None:
    servicer.enter_graceful_shutdown()
    assert healthcheck.main(["--target", target]) == 1
    assert capsys.readouterr().out == "NOT_SERVING\n"


def test_one_service(target: str, servicer: health.HealthServicer) -> None:
    servicer.set("velatura.v1.EditService", Status.SERVING)
    assert healthcheck.main(["--target", target, "--service", "velatura.v1.EditService"]) == 0
    servicer.set("velatura.v1.EditService", Status.NOT_SERVING)
    assert healthcheck.main(["--target", target, "--service", "velatura.v1.EditService"]) == 1


def test_unknown_service(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert healthcheck.main(["--target", target, "--service", "no.Such"]) == 1
    assert capsys.readouterr().out == "NOT_FOUND\n"


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        target = f"127.0.0.1:{closed.getsockname()[1]}"
        assert healthcheck.main(["--target", target, "--timeout", "2"]) == 1
    assert capsys.readouterr().out == "UNAVAILABLE\n"


@pytest.mark.parametrize(
    ("listen", "target"),
    [
        ("0.0.0.0:8500", "127.0.0.1:8500"),
        (":8500", "127.0.0.1:8500"),
        ("[::]:8500", "[::1]:8500"),
        ("10.0.0.7:8500", "10.0.0.7:8500"),
    ],
)
def test_target_of_a_listening_address(listen: str, target: str) -> None:
    assert healthcheck.target_of(listen) == target
