"""The command line `velatura-loadtest`: reads flags and variables, then hands over to Locust.

Every flag is a variable as well: `--max-p95-ms` is VELATURA_LOAD_MAX_P95_MS. Nothing heavy is
imported before the arguments are known to be good.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from velatura.client.loadtest.gate import Limit, Quantity, parse_limit
from velatura.client.loadtest.plan import Plan, parse_mix, parse_sizes

T = TypeVar("T")
_VARIABLES = {
    "--target": ("VELATURA_TARGET", "VELATURA_SERVER"),
    "--api-key": ("VELATURA_API_KEY",),
}
_DEFAULT = Plan()
_GATE: tuple[tuple[str, Quantity, str, str], ...] = (
    ("--max-error-ratio", "error ratio", "0.01", "share of the calls that may fail (0.01)"),
    ("--max-p50-ms", "p50", "", "half of the calls that succeed are as fast"),
    ("--max-p95-ms", "p95", "", "95%% of them are"),
    ("--max-p99-ms", "p99", "", "99%% of them are"),
    ("--min-rate", "rate", "", "successes a second"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code is 0, 1 for a gate that failed, 2 for what cannot be done."""
    options = _parser().parse_args(arguments)
    if importlib.util.find_spec("locust") is None:
        return _refuse("Locust is missing: pip install 'velatura-client[loadtest]'")
    import locust  # noqa: F401  first of all: it replaces sockets and threads by gevent's

    from velatura.client.errors import VelaturaError
    from velatura.client.loadtest import running

    plan = _plan_of(options)
    try:
        if options.command == "ui":
            return running.serve_page(plan, *options.listen)
        return running.run(plan, _limits_of(options), options.out)
    except (VelaturaError, ValueError, OSError) as error:
        return _refuse(str(error))


def _refuse(message: str) -> int:
    print(f"velatura-loadtest: {message}", file=sys.stderr)
    return 2


def _plan_of(options: argparse.Namespace) -> Plan:
    fields = {name: value for name, value in vars(options).items() if name in vars(_DEFAULT)}
    return Plan(**fields)


def _limits_of(options: argparse.Namespace) -> list[Limit]:
    limits: list[Limit] = []
    for flag, quantity, default, _ in _GATE:
        given: list[Limit] | None = getattr(options, _destination(flag))
        if given is None:
            texts = (_variable(flag) or default).split(",")
            given = [parse_limit(quantity, text) for text in texts if text]
        limits += given
    return limits


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="velatura-loadtest",
        description="Load a Velatura server as its callers would, and judge what it does.",
        epilog="Every flag is a variable as well: --users is VELATURA_LOAD_USERS.",
    )
    parser.add_argument("--version", action="version", version=version("velatura-client"))
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    _add_connection(shared)
    _add_load(shared)
    _add_pictures(shared)
    run = commands.add_parser("run", parents=[shared], help="headless, for a set time, judged")
    _add_run(run)
    page = commands.add_parser("ui", parents=[shared], help="Locust's web page")
    _add(
        page, "--listen", _address, ("127.0.0.1", 8089), "address of the page (127.0.0.1:8089)",
        metavar="HOST:PORT",
    )  # fmt: skip
    return parser


def _add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    _add(group, "--target", str, _DEFAULT.target, "address (%(default)s)", metavar="HOST:PORT")
    _add(group, "--api-key", str, None, "API key, where the server asks", metavar="KEY")
    _switch(group, "--tls", "connect by TLS")
    _add(group, "--ca", Path, None, "trust these root certificates (PEM)", metavar="FILE")
    _add(group, "--connections", _count, 4, "TCP connections that callers share (%(default)s)")
    _add(group, "--timeout-s", _positive, 10.0, "deadline of each call (%(default)s)")
    _add(group, "--wait-s", _positive, 60.0, "wait so long for a ready server (%(default)s)")


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    _add(group, "--users", _count, 8, "closed loop: callers, one call each at a time (%(default)s)")
    _add(group, "--rate", _positive, None, "open loop: arrivals a second, by the clock")
    _add(
        group, "--arrivals", _reader(_parse_arrivals), "poisson",
        "open loop: poisson or even (%(default)s)", metavar="HOW",
    )  # fmt: skip
    _add(
        group, "--max-in-flight", _count, 1000,
        "open loop: arrivals beyond it count as failed (%(default)s)",
    )  # fmt: skip
    _add(group, "--think-s", _pause, 0.0, "closed loop: pause between actions (%(default)s)")
    _add(
        group, "--mix", _reader(parse_mix), dict(_DEFAULT.mix),
        f"what callers do, by weight ({_DEFAULT.mix_text})", metavar="KIND=WEIGHT,...",
    )  # fmt: skip
    _add(group, "--slider-steps", _count, 8, "edits of a slider session (%(default)s)")
    _add(group, "--slider-think-s", _pause, 0.15, "mean pause before each (%(default)s)")
    _add(group, "--seed", int, 0, "of pictures and choices (%(default)s)")


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pictures")
    _add(
        group, "--images", Path, None, "pictures to send; the server's own samples if left out",
        metavar="FOLDER",
    )  # fmt: skip
    _add(
        group, "--sizes", _reader(parse_sizes), _DEFAULT.sizes,
        "longer side in pixels, least to greatest (128-1024)", metavar="A-B",
    )  # fmt: skip
    _add(group, "--pool", _count, 24, "pictures that are prepared (%(default)s)")
    _switch(group, "--distinct", "send no picture twice, so that caches do not flatter")


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add(parser, "--duration-s", _positive, 60.0, "time that is measured (%(default)s)")
    _add(parser, "--warmup-s", _pause, 3.0, "load before that, not counted (%(default)s)")
    _add(
        parser, "--out", Path, Path("out/load"), "folder of report.html and tables (%(default)s)",
        metavar="FOLDER",
    )  # fmt: skip
    gate = parser.add_argument_group(
        "gate", "Exit code 1 when a limit is broken. NAME=LIMIT is for one kind of call."
    )
    for flag, quantity, _, what in _GATE:
        read = _reader(partial(parse_limit, quantity))
        gate.add_argument(flag, type=read, action="append", help=what, metavar="LIMIT")


def _add(
    to: Any, flag: str, kind: Callable[[str], T], default: T | None, what: str, **more: Any
) -> None:
    """A flag; its variable, where set, is its default, and argparse reads both alike."""
    to.add_argument(flag, type=kind, default=_variable(flag) or default, help=what, **more)


def _switch(to: Any, flag: str, what: str) -> None:
    on = (_variable(flag) or "").lower() in {"1", "true", "yes", "on"}
    to.add_argument(flag, action=argparse.BooleanOptionalAction, default=on, help=what)


def _variable(flag: str) -> str | None:
    """What the flag's variable says; None when it is not set, or empty."""
    names = _VARIABLES.get(flag, (f"VELATURA_LOAD_{_destination(flag).upper()}",))
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _destination(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _reader(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse` for argparse, which shows the message of one kind of error only."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _parse_number(text: str, least: float, above: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least or (above and value == least):
        raise ValueError(
            f"{text!r}: write a number {'above' if above else 'of at least'} {least:g}"
        )
    return value


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r}: write a whole number of at least 1")
    return int(text)


def _parse_arrivals(text: str) -> str:
    if text not in {"poisson", "even"}:
        raise ValueError(f"{text!r}: arrivals are poisson or even")
    return text


def _parse_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r}: write HOST:PORT, such as 127.0.0.1:8089")
    return host, int(port)


_positive = _reader(partial(_parse_number, least=0.0, above=True))
_pause = _reader(partial(_parse_number, least=0.0, above=False))
_count = _reader(_parse_count)
_address = _reader(_parse_address)
