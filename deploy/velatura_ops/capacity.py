"""How much one instance carries, from what it has learned: a batch of n items costs a n + b.

Reads the metrics of a server that has just carried the planned mix (`make load`, or real callers),
so that it knows how many items of each network a call needs.
"""

from __future__ import annotations

import argparse
import math
import sys
import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

USE = 0.7  # of what is possible: above it, queues grow faster than the load


@dataclass(frozen=True)
class Network:
    """What one network costs. Seconds; `items_per_call` is over all calls that ended well."""

    name: str
    items_per_call: float
    a: float
    b: float
    batch_limit: int
    mean_batch: float

    def seconds_per_item(self, batch: float) -> float:
        """An item's share of a batch of so many."""
        return self.a + self.b / batch

    def seconds_per_call(self, batch: float) -> float:
        """The device's time for one call."""
        return self.items_per_call * self.seconds_per_item(batch)


@dataclass(frozen=True)
class Capacity:
    """What an instance carries."""

    calls: float
    networks: tuple[Network, ...]

    def calls_per_second(self, full: bool) -> float:
        """Of this mix, the device always busy, with full batches or with those that were seen. The
        networks share the device, so that their times add up."""
        seconds = sum(
            each.seconds_per_call(each.batch_limit if full else each.mean_batch)
            for each in self.networks
        )
        return 1 / seconds if seconds else math.inf

    def instances(self, calls_per_second: float, use: float = USE) -> int:
        """How many carry that many calls, each used so far."""
        return math.ceil(calls_per_second / (self.calls_per_second(full=True) * use))


def capacity(page: str) -> Capacity:
    """From the text of /metrics. Raises ValueError where no call has succeeded yet."""
    samples = [
        sample for family in text_string_to_metric_families(page) for sample in family.samples
    ]

    def by_model(name: str) -> dict[str, float]:
        return {each.labels["model"]: each.value for each in samples if each.name == name}

    calls = math.fsum(
        each.value
        for each in samples
        if each.name == "grpc_server_handled_total" and each.labels["grpc_code"] == "OK"
    )
    if not calls:
        raise ValueError(
            "no call has succeeded yet, so that the mix is unknown: load the server first"
        )
    items, runs = by_model("velatura_batch_size_sum"), by_model("velatura_batch_size_count")
    a = by_model("velatura_model_cost_item_seconds")
    b = by_model("velatura_model_cost_batch_seconds")
    limits = by_model("velatura_model_batch_limit")
    return Capacity(
        calls,
        tuple(
            Network(
                name=name,
                items_per_call=items[name] / calls,
                a=a[name],
                b=b[name],
                batch_limit=int(limits[name]),
                mean_batch=items[name] / runs[name],
            )
            for name in sorted(items)
            if runs[name]
        ),
    )


def table_of(found: Capacity) -> Table:
    """The networks, one line each; times in milliseconds."""
    table = Table(title=f"what a call needs, over {found.calls:.0f} calls")
    table.add_column("network")
    for heading in (
        "items a call", "a, ms", "b, ms", "mean batch", "ms a call, mean batch",
        "ms a call, full batch",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for each in found.networks:
        table.add_row(
            each.name, f"{each.items_per_call:.2f}", f"{each.a * 1000:.2f}", f"{each.b * 1000:.2f}",
            f"{each.mean_batch:.2f}", f"{each.seconds_per_call(each.mean_batch) * 1000:.2f}",
            f"{each.seconds_per_call(each.batch_limit) * 1000:.2f}",
        )  # fmt: skip
    return table


def report(found: Capacity, use: float = USE) -> None:
    """Print what is to be planned with."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table_of(found))
    seen, full = found.calls_per_second(full=False), found.calls_per_second(full=True)
    print(f"one instance, always busy: {seen:.1f} calls/s at the mean batch, {full:.1f} at full")
    print(f"to plan with, {use:.0%} of it: {full * use:.1f} calls/s")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="scripts/capacity", description=__doc__)
    parser.add_argument(
        "--metrics", default="http://127.0.0.1:9090/metrics", metavar="URL", help="(%(default)s)"
    )
    parser.add_argument("--calls", type=float, metavar="N", help="calls per second to plan for")
    parser.add_argument(
        "--use",
        type=float,
        default=USE,
        help="share of it to plan with (%(default)s)",
    )
    options = parser.parse_args()
    try:
        with urllib.request.urlopen(options.metrics, timeout=10) as answer:
            found = capacity(answer.read().decode())
    except (OSError, ValueError) as error:
        print(f"--metrics {options.metrics}: {error}", file=sys.stderr)
        return 1
    report(found, options.use)
    if options.calls:
        count = found.instances(options.calls, options.use)
        print(f"{options.calls:g} calls/s: {count} instance{'s' if count > 1 else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
