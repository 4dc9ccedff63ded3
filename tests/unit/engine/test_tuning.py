"""Tuning measures real networks, picks by all of them, and writes what serve reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from velatura.server.cli import app
from velatura.server.settings import load
from velatura.server.tuning import Measured, Plan, Way, scores, winner, write

BY_LOAD = Way(0, 0, 8)
WIDE = Way(1, 2, 8)


def measured(way: Way, *rates: float) -> Measured:
    points = [("a", 1), ("a", 8), ("b", 1), ("b", 8)]
    return Measured(way, dict(zip(points, rates, strict=True)))


def test_a_real_run_prints_the_table_and_serve_reads_the_file(
    bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VELATURA_PROVIDER", "cpu")
    monkeypatch.setattr("velatura.server.tuning.cpu_budget", lambda: 2)
    output = tmp_path / "tuned.toml"
    output.write_text("# ours\nmax_side = 77\ninstances = 9\n")
    arguments = [
        "tune", "--bundle", str(bundle_root), "--output", str(output), "--seconds", "0.05",
        "--callers", "1,4", "--batches", "4", "--model", "tiny-segmenter",
        "--model", "tiny-synthesis",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for words in ("by load", "1 × 2", "2 × 1", "4 callers", "Written to"):
        assert words in " ".join(result.output.split())
    settings = load(["--config", str(output)])
    assert (settings.instances, settings.intra_threads) in {(0, 0), (1, 2), (2, 1)}
    assert settings.max_batch_size == 4
    assert settings.max_side == 77
    assert output.read_text().splitlines()[-2:] == ["# ours", "max_side = 77"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--callers", "1,x"], "1,x"),
        (["--model", "nope"], "nope"),
        (["--bundle", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_arguments_are_named(bundle_root: Path, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["tune", "--bundle", str(bundle_root), *arguments])
    assert result.exit_code in (1, 2)
    assert words in result.output


def test_a_file_that_is_not_toml_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("max_side 5\n")
    with pytest.raises(ValueError, match="line 1"):
        write(file, BY_LOAD)
    assert file.read_text() == "max_side 5\n"


def test_ways_make_up_all_cpus() -> None:
    ways = {(way.instances, way.threads) for way in Plan(batches=[8]).ways(6)}
    assert ways == {(0, 0), (1, 6), (2, 3), (6, 1)}
    assert len(Plan(batches=[4, 8]).ways(2)) == 6


def test_no_network_counts_for_more_because_it_is_fast() -> None:
    fast_a = measured(WIDE, 1000, 1000, 10, 10)
    even = measured(BY_LOAD, 900, 900, 20, 20)
    assert winner([fast_a, even]) == BY_LOAD
    assert scores([fast_a, even]) == pytest.approx([0.5**0.5, 0.9**0.5])


def test_noise_does_not_leave_the_default() -> None:
    assert winner([measured(BY_LOAD, 99, 99, 99, 99), measured(WIDE, 100, 100, 100, 100)]) == (
        BY_LOAD
    )
    assert winner([measured(BY_LOAD, 90, 90, 90, 90), measured(WIDE, 100, 100, 100, 100)]) == WIDE
