"""`python -m benchmarks [SECTION…]`: measures our server on this machine and prints Markdown.

Every section takes turns with what it is compared with. `--keep` keeps the tables with what
they were measured on, `--json FILE` the figures. Nothing is compared with a limit: this tells,
tests judge.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.load import run
from benchmarks.report import RESULTS, Report, figures, keep
from benchmarks.sections import footprint, lanes, oip, overload, pipelines, rates
from benchmarks.server_process import ROOT

Section = Callable[[Bench], Coroutine[Any, Any, Report]]
SECTIONS: dict[str, Section] = {
    "oip": oip.measure,
    "lanes": lanes.measure,
    "pipelines": pipelines.measure,
    "rates": rates.measure,
    "overload": overload.measure,
    "retries": overload.measure_retries,
    "delays": overload.measure_delays,
    "footprint": footprint.measure,
}


def main() -> int:
    """Reads the command line, measures, prints."""
    options = parsed()
    # As an interrupt does, so that the server is stopped too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bench = Bench(
        options.bundle, options.seconds, options.rounds, options.overload, tuple(options.flags)
    )
    facts, reports = machine.facts(), list[Report]()
    code = 0
    try:
        for name in options.sections or SECTIONS:
            steal = machine.Steal()
            report = run(SECTIONS[name](bench))
            if (share := steal.share()) > 0.01:
                report.remarks.append(f"{share:.0%} of the CPU time went to other machines.")
            reports.append(report)
            print(report.markdown(), flush=True)
    except KeyboardInterrupt:
        print("Interrupted; the sections above are whole.", file=sys.stderr)
        code = 130
    if options.json:
        options.json.write_text(figures(reports, facts))
    if options.keep:
        keep(RESULTS, reports, facts, "make bench")
    return code


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION",
        help=f"of {', '.join(SECTIONS)}; all where none is named",
    )  # fmt: skip
    parser.add_argument("--bundle", type=Path, default=ROOT / "models", help="what is served")
    parser.add_argument("--seconds", type=float, default=3.0, help="a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument(
        "--overload", type=float, default=60.0, help="seconds of overload (%(default)s)"
    )
    parser.add_argument(
        "--flags", type=str.split, default=[], help="further flags of velatura-server, in one word"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--keep", action="store_true", help=f"keep the tables in {RESULTS}")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
