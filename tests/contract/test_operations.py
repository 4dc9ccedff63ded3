"""What operators rely on: starting, refusing to start, load, limits, keys, TLS, draining."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from velatura.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    edit_pb2,
    edit_pb2_grpc,
    stylize_pb2,
    stylize_pb2_grpc,
)

from ..running import COMMAND, RunningServer, clean_environment, png, samples
from .failures import failing, failure_of

Code = grpc.StatusCode
Start = Callable[..., RunningServer]


def edit_request(size: int = 64, seed: int = 0, value: float = 0.7) -> edit_pb2.EditImageRequest:
    layers = edit_pb2.LayerRange(start=0, end=12)
    edit = edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[value]))
    return edit_pb2.EditImageRequest(image=png(size, size, seed), edits=[edit])


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A server that is expected to give up by itself."""
    return subprocess.run(
        [*COMMAND, "serve", *arguments],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["--listen", "8500"], {}, ["listen", "--listen", "VELATURA_LISTEN"]),
        ([], {"VELATURA_MAX_PIXELS": "many"}, ["max_pixels", "VELATURA_MAX_PIXELS"]),
        (["--provider", "tpu"], {}, ["provider", "'cuda'"]),
        (["--tls-cert", "/nowhere.pem"], {}, ["tls_cert"]),
        (["--config", "/nowhere.toml"], {}, ["config", "/nowhere.toml"]),
        (["--bundle", "/nowhere"], {}, ["bundle", "VELATURA_BUNDLE", "/nowhere"]),
        (["--shout"], {}, ["--shout"]),
    ],
)
def test_bad_settings_exit_with_2_and_name_the_field(
    arguments: list[str], environment: dict[str, str], named: list[str]
) -> None:
    result = serve(*arguments, **environment)
    assert result.returncode == 2
    assert all(name in result.stderr for name in named)
    assert "Traceback" not in result.stderr


def test_a_damaged_bundle_is_refused_by_name(bundle_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle_path, copy)
    victim = copy / "avatar-encoder.onnx"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    result = serve("--bundle", str(copy))
    assert result.returncode == 2
    assert "avatar-encoder.onnx" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen"])
def test_a_port_in_use_is_said_in_one_line(bundle_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--metrics-listen" if flag == "--listen" else "--listen"
        result = serve(
            "--bundle", str(bundle_path), flag, address, other, "127.0.0.1:0",
            "--log-level", "error",
        )  # fmt: skip
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("velatura-server:")]
    assert len(lines) == 1
    assert address in lines[0]
    assert flag in lines[0]
    assert "Traceback" not in result.stderr


def test_strict_cuda_without_a_gpu_does_not_start(bundle_path: Path) -> None:
    result = serve(
        "--bundle", str(bundle_path), "--provider", "cuda", "--strict-provider",
        "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
    )  # fmt: skip
    assert result.returncode == 1
    assert "cuda" in result.stderr.lower()


def test_settings_come_from_file_environment_and_flags(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.toml"
    file.write_text("max_pixels = 1000\nmax_side = 50\n")
    server = start("--config", str(file), "--max-pixels", "4096")
    stub = edit_pb2_grpc.EditServiceStub(server.channel())
    assert stub.EditImage(edit_request(50)).latent_token
    failure = failing(stub.EditImage, edit_request(60))
    assert failure.reason == "SIDE_TOO_LONG"
    assert failing(stub.EditImage, edit_request(70)).info["limit"] == "4096"


def test_many_callers_share_batches_and_each_gets_its_own_answer(start: Start) -> None:
    server = start("--cache-mib", "0")  # every answer is computed
    stub = edit_pb2_grpc.EditServiceStub(server.channel())
    requests = [edit_request(128, seed) for seed in range(32)]
    expected = [samples(stub.EditImage(request).image) for request in requests]
    names = ("velatura_batch_size_sum", "velatura_batch_size_count")
    before = [server.total(name, model="avatar-synthesis") for name in names]
    wrong: list[str] = []

    def caller(place: int) -> None:
        for _ in range(3):
            got = samples(stub.EditImage(requests[place], timeout=120).image)
            if np.abs(got - expected[place]).max() > 1:
                wrong.append(f"caller {place} got another answer")

    threads = [threading.Thread(target=caller, args=(place,)) for place in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    items, batches = (
        server.total(name, model="avatar-synthesis") - was
        for name, was in zip(names, before, strict=True)
    )
    assert not wrong
    assert items == 32 * 3 * 2
    # One request alone is a batch of two: its image before and after.
    assert items / batches > 3


def test_an_overloaded_server_says_when_to_retry(start: Start) -> None:
    server = start("--max-queue-items", "2", "--max-batch-size", "1")
    stub = edit_pb2_grpc.EditServiceStub(server.channel())
    calls = [stub.EditImage.future(edit_request(seed=seed)) for seed in range(30)]
    refused = []
    served = 0
    for call in calls:
        try:
            served += bool(call.result(timeout=120).latent_token)
        except grpc.RpcError as error:
            refused.append(failure_of(error))
    assert served > 0
    assert refused
    for failure in refused:
        assert (failure.code, failure.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert failure.retry_delay_s is not None
        assert failure.retry_delay_s > 0
        pushback = int(failure.trailers["grpc-retry-pushback-ms"])
        assert pushback == pytest.approx(failure.retry_delay_s * 1000, abs=1)
    assert stub.EditImage(edit_request()).latent_token


def test_more_requests_than_the_limit_are_refused(start: Start) -> None:
    server = start("--max-requests", "2")
    stub = edit_pb2_grpc.EditServiceStub(server.channel())
    requests = [edit_request(256, seed) for seed in range(12)]
    calls = [stub.EditImage.future(request) for request in requests]
    codes = [call.code() for call in calls]
    assert set(codes) == {Code.OK, Code.RESOURCE_EXHAUSTED}
    health = health_pb2_grpc.HealthStub(server.channel())
    assert health.Check(health_pb2.HealthCheckRequest()).status == 1
    assert stub.EditImage(edit_request()).latent_token


def test_only_known_keys_are_let_in(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# the web shop\nfirst-key\n\nsecond-key\n")
    server = start("--api-keys", str(file))
    stub = catalog_pb2_grpc.CatalogServiceStub(server.channel())
    request = catalog_pb2.ListStylesRequest()
    for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "first-key"),)):
        failure = failing(stub.ListStyles, request, metadata=metadata)
        assert failure.code is Code.UNAUTHENTICATED
    for key in ("first-key", "second-key"):
        assert stub.ListStyles(request, metadata=(("authorization", f"Bearer {key}"),)).styles
    health = health_pb2_grpc.HealthStub(server.channel())
    assert health.Check(health_pb2.HealthCheckRequest()).status == 1
    log = server.log.read_text()
    assert "first-key" not in log
    assert "second-key" not in log


def test_tls(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(each.bytes() for each in pair.cert_chain_pems))
    pair.private_key_pem.write_to_path(key)
    server = start("--tls-cert", str(cert), "--tls-key", str(key))
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with grpc.secure_channel(server.address, credentials) as channel:
        stub = catalog_pb2_grpc.CatalogServiceStub(channel)
        assert stub.ListStyles(catalog_pb2.ListStylesRequest(), timeout=20).styles
    plain = catalog_pb2_grpc.CatalogServiceStub(server.channel())
    with pytest.raises(grpc.RpcError):
        plain.ListStyles(catalog_pb2.ListStylesRequest(), timeout=5)


def test_sigterm_under_load_finishes_what_is_in_flight(start: Start) -> None:
    server = start("--drain-s", "60")
    channel = server.channel()
    styling = stylize_pb2_grpc.StyleServiceStub(channel)
    catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
    health = health_pb2_grpc.HealthStub(channel)
    preset = catalog.ListStyles(catalog_pb2.ListStylesRequest()).styles[0].name
    style = stylize_pb2.StyleSource(preset=preset)
    requests = [
        stylize_pb2.StylizeRequest(content=png(700, 700, seed), styles=[style]) for seed in range(6)
    ]
    calls = [styling.Stylize.future(request) for request in requests]
    until = time.monotonic() + 30
    while server.total("grpc_server_in_flight") < 6 and time.monotonic() < until:
        time.sleep(0.01)

    server.terminate()
    while not any(event.get("event") == "draining" for event in server.events()):
        time.sleep(0.01)
    status = health.Check(health_pb2.HealthCheckRequest()).status
    assert status == health_pb2.HealthCheckResponse.NOT_SERVING
    failure = failing(styling.Stylize, requests[0])
    assert (failure.code, failure.reason) == (Code.UNAVAILABLE, "DRAINING")
    assert failure.retry_delay_s is not None
    for call in calls:
        assert call.result(timeout=120).image.encoded
    assert server.wait() == 0
    assert [event["event"] for event in server.events()][-1] == "stopped"


def test_the_drain_limit_holds(start: Start) -> None:
    server = start("--drain-s", "0.2")
    styling = stylize_pb2_grpc.StyleServiceStub(server.channel())
    catalog = catalog_pb2_grpc.CatalogServiceStub(server.channel())
    preset = catalog.ListStyles(catalog_pb2.ListStylesRequest()).styles[0].name
    style = stylize_pb2.StyleSource(preset=preset)
    request = stylize_pb2.StylizeRequest(content=png(2400, 1600), styles=[style])
    call = styling.Stylize.future(request)
    while server.total("grpc_server_in_flight") < 1:
        time.sleep(0.01)
    server.terminate()
    # A batch that is on the device cannot be stopped: the limit is for everything around it.
    assert server.wait(30) == 0
    assert call.code() in (Code.CANCELLED, Code.UNAVAILABLE)
    assert any(event.get("event") == "drain limit reached" for event in server.events())


def test_sigterm_while_starting_is_heeded(bundle_path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--bundle", str(bundle_path), "--listen", "127.0.0.1:0",
             "--metrics-listen", "127.0.0.1:0", "--log-format", "json"],
            stdout=stream, stderr=subprocess.STDOUT, env=clean_environment(),
        )  # fmt: skip
    until = time.monotonic() + 60
    while "avatar-synthesis" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.005)
    process.terminate()
    assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()
