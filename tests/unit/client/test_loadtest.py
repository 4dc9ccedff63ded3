"""The load test's own arithmetic: plans, pictures, arrivals, figures, and the gate. No Locust here:
importing it would make this process's sockets and threads gevent's."""

from __future__ import annotations

import io
import itertools
import re
import shlex
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageChops, ImageStat

from velatura.client.errors import ResourceExhausted
from velatura.client.loadtest import cli
from velatura.client.loadtest.arrivals import gaps
from velatura.client.loadtest.gate import Limit, judge, parse_limit
from velatura.client.loadtest.ledger import ALL, Call, Ledger, quantile
from velatura.client.loadtest.measured_client import failure_of, wrong_with
from velatura.client.loadtest.pictures import Pictures, encode, load_folder
from velatura.client.loadtest.plan import Kind, Plan, parse_mix, parse_sizes
from velatura.client.loadtest.variants import variable
from velatura.client.results import ChangeReport

DOC = Path(__file__).parents[3] / "docs/load-testing.md"


def sources(count: int = 3) -> list[Image.Image]:
    small = [Image.frombytes("RGB", (6, 4), Random(i).randbytes(72)) for i in range(count)]
    return [image.resize((96, 64), Image.Resampling.BICUBIC) for image in small]


def test_this_process_stays_without_gevent() -> None:
    assert "gevent" not in sys.modules
    assert "locust" not in sys.modules


def test_a_mix_is_read_and_kinds_of_weight_0_are_left_out() -> None:
    assert parse_mix("edit=4, slider=1,segment=0") == {Kind.EDIT: 4, Kind.SLIDER: 1}
    assert parse_mix(Plan().mix_text) == Plan().mix


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("paint=1", "'paint' is no kind of call; there are edit, stylize, segment, slider"),
        ("edit", "write KIND=WEIGHT"),
        ("edit=-1", "whole numbers from 0 to 1000"),
        ("edit=1,edit=2", "twice"),
        ("edit=0", "every weight is 0"),
    ],
)
def test_a_bad_mix_is_refused_with_the_way_to_write_it(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("=", "\\=")):
        parse_mix(text)


def test_sizes_are_read() -> None:
    assert parse_sizes("128-1024") == (128, 1024)
    assert parse_sizes("512") == (512, 512)
    for bad in ("8-100", "200-100", "big", "100-", "100-20000"):
        with pytest.raises(ValueError, match="pixels"):
            parse_sizes(bad)


def test_pictures_are_the_same_for_the_same_seed_and_as_large_as_asked() -> None:
    first, again, other = (Pictures(sources(1), 12, (64, 400), seed) for seed in (1, 1, 2))
    assert [shot.data for shot in first.shots] == [shot.data for shot in again.shots]
    assert [shot.data for shot in first.shots] != [shot.data for shot in other.shots]
    sizes = [Image.open(io.BytesIO(shot.data)).size for shot in first.shots]
    assert all(63 <= max(size) <= 401 for size in sizes)
    assert len({max(size) for size in sizes}) > 6
    assert {shot.kind for shot in first.shots} == {"PNG", "JPEG"}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(97, 61), (3, 1), (640, 480)])
def test_distinct_pictures_decode_to_other_samples_each_time(
    kind: str, size: tuple[int, int]
) -> None:
    image = sources(1)[0].resize(size)
    vary, rng = variable(encode(image, kind), kind), Random(3)
    seen = [Image.open(io.BytesIO(vary(rng))) for _ in range(8)]
    assert {(each.size, each.mode, each.format) for each in seen} == {(size, "RGB", kind)}
    assert len({each.tobytes() for each in seen}) == 8
    if size != (3, 1):  # which is all first row
        change = ImageStat.Stat(ImageChops.difference(seen[0], image)).mean
        assert max(change) < 6, "it stays the picture that it was"


def test_a_pool_repeats_itself_unless_it_must_not() -> None:
    pool, rng = Pictures(sources(1), 1, (64, 64), 0), Random(3)
    assert len({pool.take(rng) for _ in range(8)}) == 1
    assert len({pool.take_distinct(rng) for _ in range(8)}) == 8


def test_a_folder_of_pictures_is_read_or_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no PNG, JPEG or WebP"):
        load_folder(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        load_folder(tmp_path / "absent")
    sources(1)[0].save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert [image.size for image in load_folder(tmp_path)] == [(96, 64)]
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(ValueError, match=r"b\.jpg"):
        load_folder(tmp_path)


def first(count: int, stream: Iterator[float]) -> list[float]:
    return list(itertools.islice(stream, count))


def test_arrivals_keep_their_rate() -> None:
    assert first(3, gaps(20.0, "even", Random(0))) == [0.05, 0.05, 0.05]
    poisson = first(20_000, gaps(20.0, "poisson", Random(0)))
    assert statistics.mean(poisson) == pytest.approx(0.05, rel=0.03)
    # The mark of exponential gaps: they scatter as widely as they are long.
    assert statistics.pstdev(poisson) == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(100, 0.95, 95.0), (100, 0.99, 99.0), (100, 0.5, 50.0), (10, 0.95, 10.0), (1, 0.5, 1.0)],
)
def test_quantiles_are_nearest_rank(count: int, share: float, expected: float) -> None:
    assert quantile([float(i) for i in range(1, count + 1)], share) == expected


def test_no_values_have_no_quantile() -> None:
    assert quantile([], 0.5) is None


def ledger_of(*milliseconds: float, failed: int = 0, name: str = "EditImage") -> Ledger:
    ledger = Ledger()
    for value in milliseconds:
        ledger.add(Call(name, value / 1000, 2**20))
    for _ in range(failed):
        ledger.add(Call(name, 0.001, 0, "UNAVAILABLE"))
    return ledger


def test_quick_failures_do_not_flatter_the_quantiles() -> None:
    figures = ledger_of(100, 200, 300, failed=97).figures(10.0)["EditImage"]
    assert (figures.calls, figures.failed) == (100, 97)
    assert figures.p50_ms == pytest.approx(200)
    assert figures.rate == pytest.approx(0.3)
    assert figures.error_ratio == pytest.approx(0.97)
    assert figures.response_mib_per_s == pytest.approx(0.3)


def test_calls_that_end_after_the_time_count_but_raise_no_rate() -> None:
    ledger = ledger_of(100, 200)
    ledger.end_time()
    ledger.add(Call("EditImage", 3.0, 2**20))
    ledger.add(Call("Segment", 3.0, 2**20))
    figures = ledger.figures(2.0)
    assert figures[ALL].calls == 4
    assert figures[ALL].rate == pytest.approx(1.0)
    assert figures["EditImage"].max_ms == pytest.approx(3000)
    assert figures["Segment"].rate == 0


def test_after_the_warm_up_nothing_of_it_is_left() -> None:
    ledger = ledger_of(100, failed=2)
    ledger.clear()
    assert list(ledger.figures(1.0)) == [ALL]
    assert ledger.figures(1.0)[ALL].calls == 0
    assert ledger.failures() == {}


def test_failures_are_counted_by_what_they_were() -> None:
    assert ledger_of(1, failed=3).failures() == {"EditImage": {"UNAVAILABLE": 3}}


def verdict(ledger: Ledger, limit: Limit) -> tuple[bool, str]:
    (found,) = judge(ledger.figures(10.0), [limit])
    return found.passed, found.text


def test_the_gate_keeps_to_the_limit_itself() -> None:
    ledger = ledger_of(*range(1, 100), failed=1)
    assert verdict(ledger, Limit("error ratio", 0.01))[0]
    assert not verdict(ledger, Limit("error ratio", 0.0099))[0]
    assert verdict(ledger, Limit("p95", 95))[0]
    assert not verdict(ledger, Limit("p95", 94))[0]
    assert verdict(ledger, Limit("rate", 9.9))[0]
    assert not verdict(ledger, Limit("rate", 10))[0]


def test_a_verdict_names_the_figure_the_value_and_the_limit() -> None:
    passed, text = verdict(ledger_of(1200, 1800), parse_limit("p99", "EditImage=1500"))
    assert not passed
    assert text == "p99 of EditImage is 1800 ms, allowed is at most 1500 ms"


def test_nothing_measured_passes_no_gate() -> None:
    assert not verdict(Ledger(), Limit("error ratio", 1.0))[0]
    assert not verdict(ledger_of(failed=3), Limit("p95", 1e9))[0]
    passed, text = verdict(ledger_of(5), parse_limit("p95", "Editimage=100"))
    assert not passed
    assert "calls that did: EditImage" in text


@pytest.mark.parametrize("text", ["fast", "nan", "-1", "EditImage=", "inf"])
def test_a_limit_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a number"):
        parse_limit("p95", text)


def test_an_error_ratio_is_a_share() -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        parse_limit("error ratio", "5")


def test_failures_are_named_by_status_and_reason_alone() -> None:
    error = ResourceExhausted("the queue holds 256 items", reason="QUEUE_FULL", retry_after=1.5)
    assert failure_of(error) == "RESOURCE_EXHAUSTED QUEUE_FULL"


def test_an_answer_that_changed_what_it_may_not_is_wrong() -> None:
    assert wrong_with(ChangeReport(0, 12.0, 0.5)) == ""
    assert wrong_with(ChangeReport(1, 12.0, 0.5)).startswith("WRONG_ANSWER")
    assert wrong_with(object()) == ""


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["run", "--users", "0"], "--users: '0': write a whole number of at least 1"),
        (["run", "--rate", "0"], "--rate: '0': write a number above 0"),
        (["run", "--mix", "edit"], "--mix: 'edit': write KIND=WEIGHT"),
        (["run", "--arrivals", "odd"], "arrivals are poisson or even"),
        (["run", "--max-p95-ms", "soon"], "--max-p95-ms: 'soon': write a number"),
        (["ui", "--listen", "8089"], "--listen: '8089': write HOST:PORT"),
        (["ui", "--max-p95-ms", "5"], "unrecognized arguments"),
        ([], "required: command"),
    ],
)
def test_bad_flags_are_refused_by_name(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problem in refused(arguments, capsys)


def documented() -> list[list[str]]:
    """The arguments of each command line of docs/load-testing.md."""
    (block,) = re.findall(r"^```sh\n(.*?)^```", DOC.read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    ours = [line[1:] for line in lines if line[0] == "velatura-loadtest"]
    made = [
        line[2].removeprefix("LOAD=") for line in lines if line[:2] == ["make", "load"] and line[2:]
    ]
    return [*ours, *(["run", *shlex.split(flags)] for flags in made)]


@pytest.mark.parametrize("arguments", documented(), ids=" ".join)
def test_documented_command_lines_are_understood(arguments: list[str]) -> None:
    assert cli._parser().parse_args(arguments).command in {"run", "ui"}


def test_documented_flags_and_no_others_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    flags: set[str] = set()
    for command in ("run", "ui"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        flags |= set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", DOC.read_text()))
    assert named - flags == {"--name"}  # docker's
    gate = {flag for flag in flags if flag.startswith(("--max-p", "--max-error", "--min-"))}
    assert gate <= named


def test_a_bad_variable_is_refused_like_its_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VELATURA_LOAD_USERS", "many")
    assert "--users: 'many': write a whole number" in refused(["run"], capsys)
