"""`python -m benchmarks.peers [PEER…]`: other servers and ours, in turns, on the same graph.

Each peer lives in an environment of its own under .venv-peers, made on the first run. Peer and ours
run side by side and take turns under the same Open Inference Protocol client; whoever does not have
its turn is idle. `--keep` keeps the table, `--json FILE` the figures.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.load import Method, Outcome, closed_loop, connected, run
from benchmarks.payloads import INFER, latents
from benchmarks.peers.subjects import PEERS, Peer
from benchmarks.report import RESULTS, Report, figures, keep, spread
from benchmarks.sections.oip import CALLERS, LAYERS, MODEL, WIDTH, mean
from benchmarks.server_process import ROOT, Served, own_server, wait_ready
from inference import open_inference_pb2 as oip

OURS = "ours"


async def compare(bench: Bench, peer: Peer) -> list[list[str | int | float | None]]:
    """Rows of one peer: rounds in which peer and ours take turns at each number of callers."""
    found: dict[tuple[str, int], list[Outcome]] = {}
    request = latents(MODEL, LAYERS, WIDTH)
    with own_server(bench.bundle, *bench.server) as ours, peer.serving(bench.bundle) as theirs:
        servers: dict[str, Served] = {OURS: ours, peer.name: theirs}
        for served in servers.values():
            wait_ready(served, MODEL)
        async with connected(ours.address) as one, connected(theirs.address) as two:
            methods = {OURS: Method(one, INFER), peer.name: Method(two, INFER)}
            await check_alike(one, two, request(), peer.title)
            for method in methods.values():
                for callers in CALLERS:
                    await closed_loop(method, request, callers, bench.probe_s)
            turns = [(name, callers) for name in methods for callers in CALLERS]
            rng = random.Random(0)
            for _ in range(bench.rounds):
                rng.shuffle(turns)
                for name, callers in turns:
                    outcome = await closed_loop(methods[name], request, callers, bench.seconds)
                    found.setdefault((name, callers), []).append(outcome)
        memory = {name: served.rss() / 2**20 for name, served in servers.items()}
    return [_row(peer, callers, found, memory) for callers in CALLERS]


async def check_alike(
    one: grpc.aio.Channel, two: grpc.aio.Channel, request: bytes, title: str
) -> None:
    """A fast wrong answer is worth nothing: raise RuntimeError unless both give the same image."""
    ours, theirs = await answer(one, request), await answer(two, request)
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-3):
        raise RuntimeError(f"{title} answers with another image than ours")


async def answer(channel: grpc.aio.Channel, request: bytes) -> NDArray[np.float32]:
    """The first output of one ModelInfer."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
    response = oip.ModelInferResponse.FromString(await call(request, timeout=60))
    return np.frombuffer(response.raw_output_contents[0], "<f4")


def _row(
    peer: Peer,
    callers: int,
    found: dict[tuple[str, int], list[Outcome]],
    memory: dict[str, float],
) -> list[str | int | float | None]:
    theirs, ours = found[peer.name, callers], found[OURS, callers]
    ratios = [b.rate() / a.rate() for a, b in zip(theirs, ours, strict=True) if a.rate()]
    failed = sum(each.errors() for each in theirs)
    return [
        peer.title + (f" ({failed} calls failed)" if failed else ""),
        callers,
        mean([each.rate() for each in theirs]),
        mean([each.latency_ms(0.99)[0] for each in theirs]),
        mean([each.rate() for each in ours]),
        mean([each.latency_ms(0.99)[0] for each in ours]),
        spread(ratios) if ratios else None,
        f"{peer.goal:g}" if callers > 1 else None,
        memory[peer.name],
        memory[OURS],
    ]


def main() -> int:
    """Reads the command line, installs, measures, prints."""
    options = parsed()
    bench = Bench(options.bundle, options.seconds, options.rounds, 0.0, tuple(options.flags))
    report = Report(
        "Other servers on the same graph",
        f"ModelInfer on `{MODEL}` over one client, which shares the CPUs. Peer and ours run side "
        f"by side and take turns: {bench.rounds} rounds of {bench.seconds:g} s in changing order. "
        "Ours holds the whole bundle, each peer this graph alone. The peers batch up to eight, as "
        "ours does, with onnxruntime on all CPUs and without spinning.",
        ["", "callers", "its images/s", "its p99 ms", "our images/s", "our p99 ms",
         "ours to its", "goal", "its MiB", "our MiB"],
    )  # fmt: skip
    steal, facts = machine.Steal(), machine.facts()
    code = 0
    for peer in PEERS:
        if options.peers and peer.name not in options.peers:
            continue
        try:
            peer.install()
            report.rows += run(compare(bench, peer))
        except (subprocess.CalledProcessError, RuntimeError) as error:
            print(f"{peer.title}: not measured: {error}", file=sys.stderr)
            code = 1
    if (share := steal.share()) > 0.01:
        report.remarks.append(f"{share:.0%} of the CPU time went to other machines.")
    print(report.markdown())
    if options.json:
        options.json.write_text(figures([report], facts))
    if options.keep and report.rows:
        keep(RESULTS, [report], facts, "make bench-peers")
    return code


def parsed() -> argparse.Namespace:
    """The command line."""
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(names)}")
    parser.add_argument("--bundle", type=Path, default=ROOT / "models", help="what is served")
    parser.add_argument("--seconds", type=float, default=3.0, help="a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument(
        "--flags", type=str.split, default=[], help="further flags of velatura-server, in one word"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--keep", action="store_true", help=f"keep the tables in {RESULTS}")
    options = parser.parse_args()
    unknown = [name for name in options.peers if name not in names]
    if unknown:
        parser.error(f"there is no peer {unknown[0]!r}; there are {', '.join(names)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
