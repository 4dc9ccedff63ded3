"""`make stack`: the server and Prometheus with the repository's rules, on this host and without
containers, until Ctrl-C; with `--load`, a small mixed load as well.

Grafana and containers come with `docker compose up`; the panels can be drawn from this Prometheus
with `python -m velatura_ops.draw`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from velatura_ops import load
from velatura_ops.compose import ROOT
from velatura_ops.local_prometheus import ADVICE, Prometheus, program, prometheus
from velatura_ops.processes import DidNotStart, free_port, running

GRPC, METRICS, PROMETHEUS = "127.0.0.1:8500", "127.0.0.1:9090", "127.0.0.1:9091"


@dataclass(frozen=True)
class Addresses:
    """Where the parts listen, host:port."""

    grpc: str = GRPC
    metrics: str = METRICS
    prometheus: str = PROMETHEUS

    @staticmethod
    def free() -> Addresses:
        """Addresses that nobody uses just now."""
        return Addresses(*(f"127.0.0.1:{free_port()}" for _ in range(3)))


def serving(target: str) -> bool:
    """Whether the server at `target` (host:port) is ready."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=1.0
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def stack(
    folder: Path,
    addresses: Addresses,
    arguments: tuple[str, ...] = (),
    scrape_interval: str | None = None,
) -> Iterator[Prometheus]:
    """Server and Prometheus for the block, with logs and data in `folder`; `arguments` are the
    server's. Raises `DidNotStart`."""
    command: list[str | Path] = [
        Path(sys.executable).parent / "velatura-server", "serve", "--listen", addresses.grpc,
        "--metrics-listen", addresses.metrics, "--log-format", "json", *arguments,
    ]  # fmt: skip
    log = folder / "server.log"
    with (
        running("the server", command, log, lambda: serving(addresses.grpc)),
        prometheus(folder, addresses.metrics, addresses.prometheus, scrape_interval) as questions,
    ):
        yield questions


def main() -> int:
    """Run until Ctrl-C or SIGTERM; the exit code."""
    options = _options()
    if program() is None:
        print(f"make stack needs Prometheus: {ADVICE}.", file=sys.stderr)
        return 1
    addresses = (
        Addresses.free()
        if options.free_ports
        else Addresses(options.listen, options.metrics_listen, options.prometheus_listen)
    )
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    arguments = ("--bundle", str(options.bundle))
    with tempfile.TemporaryDirectory(prefix="velatura-stack-") as folder:
        try:
            with stack(Path(folder), addresses, arguments):
                _announce(addresses, folder)
                asyncio.run(_stay(addresses.grpc, options.load, options.callers))
        except DidNotStart as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            pass
    print("Everything is stopped.")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make stack", description=__doc__)
    parser.add_argument("--listen", default=GRPC, help="gRPC (%(default)s)")
    parser.add_argument("--metrics-listen", default=METRICS, help="its metrics (%(default)s)")
    parser.add_argument("--prometheus-listen", default=PROMETHEUS, help="(%(default)s)")
    parser.add_argument("--free-ports", action="store_true", help="take free ports instead")
    parser.add_argument("--bundle", type=Path, default=ROOT / "models", help="(%(default)s)")
    parser.add_argument(
        "--load",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="send a mixed load (none)",
    )
    parser.add_argument("--callers", type=int, default=6, help="callers of the load (%(default)s)")
    return parser.parse_args()


def _announce(addresses: Addresses, folder: str) -> None:
    print(
        f"gRPC        {addresses.grpc}\n"
        f"metrics     http://{addresses.metrics}/metrics\n"
        f"Prometheus  http://{addresses.prometheus} (alerts: /alerts, rules: /rules)\n"
        f"logs        {folder}\n"
        f"pictures    scripts/draw-dashboards --prometheus http://{addresses.prometheus}\n"
        "Ctrl-C stops everything.",
        flush=True,
    )


async def _stay(target: str, seconds: float, callers: int) -> None:
    if seconds > 0:
        tally = await load.drive(target, seconds, callers)
        print("load: " + ", ".join(f"{code} {n}" for code, n in sorted(tally.codes.items())))
        sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
