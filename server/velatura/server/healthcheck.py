"""Asks a server's `grpc.health.v1` whether it is serving; for containers without another probe.

`python -m velatura.server.healthcheck` exits 0 when it is, 1 when it is not or does not answer in
time. Imports gRPC alone, so that a probe every few seconds costs little.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

DEFAULT_TARGET = "127.0.0.1:8500"
# What a server listens on to be reached on every interface, and where it is then found from inside.
EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104


def target_of(listen: str) -> str:
    """The address at which a server that listens on `listen` (host:port) answers this machine."""
    host, _, port = listen.rpartition(":")
    return f"{EVERY_INTERFACE.get(host, host)}:{port}"


def open_channel(target: str, ca: Path | None, server_name: str) -> grpc.Channel:
    """A channel to the server: TLS that trusts `ca` for `server_name`, plain text without one."""
    # A proxy that the environment names is for the outside, not for this machine's own server.
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)]
    if ca is None:
        return grpc.insecure_channel(target, options=options)
    # The certificate is for the name that callers use, not for the loopback address.
    options.append(("grpc.ssl_target_name_override", server_name))
    credentials = grpc.ssl_channel_credentials(root_certificates=ca.read_bytes())
    return grpc.secure_channel(target, credentials, options=options)


def status(channel: grpc.Channel, service: str, timeout_s: float) -> str:
    """Name of the health status, such as "SERVING", or of the gRPC error that came instead."""
    with channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
            return str(code.name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check and prints its outcome; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m velatura.server.healthcheck", description=__doc__
    )
    parser.add_argument(
        "--target",
        default=target_of(os.environ.get("VELATURA_LISTEN") or DEFAULT_TARGET),
        help="host:port of the server (default: %(default)s, from VELATURA_LISTEN)",
    )
    parser.add_argument("--service", default="", help="one service; the whole server when left out")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds (default: %(default)s)")
    parser.add_argument(
        "--ca",
        type=Path,
        default=os.environ.get("VELATURA_TLS_CERT"),
        help="PEM certificates to trust, for a server with TLS (default: VELATURA_TLS_CERT)",
    )
    parser.add_argument(
        "--server-name",
        default=os.environ.get("VELATURA_SERVER_NAME") or "localhost",
        help="name in the certificate (default: %(default)s, from VELATURA_SERVER_NAME)",
    )
    options = parser.parse_args(arguments)
    try:
        channel = open_channel(options.target, options.ca, options.server_name)
    except OSError as error:
        print(f"--ca: {error.filename}: {error.strerror}")
        return 1
    found = status(channel, options.service, options.timeout)
    print(found)
    return 0 if found == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
