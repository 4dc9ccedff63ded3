"""The containers' probe tells a serving server from every other one."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme
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


def test_tls(
    servicer: health.HealthServicer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("images.example.org")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    asked = ["--target", f"127.0.0.1:{port}", "--ca", str(tmp_path / "ca.pem")]
    try:
        assert healthcheck.main([*asked, "--server-name", "images.example.org"]) == 0
        assert healthcheck.main([*asked, "--server-name", "other.example.org"]) == 1
        assert healthcheck.main(asked[:2]) == 1  # plain text to a server with TLS
    finally:
        server.stop(grace=None).wait()
    assert capsys.readouterr().out == "SERVING\nUNAVAILABLE\nUNAVAILABLE\n"


def test_missing_certificates(capsys: pytest.CaptureFixture[str]) -> None:
    assert healthcheck.main(["--ca", "/no/such.pem"]) == 1
    assert capsys.readouterr().out == "--ca: /no/such.pem: No such file or directory\n"


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
