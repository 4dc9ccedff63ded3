"""What the benchmark of metrics and traces concludes from its intervals."""

from __future__ import annotations

import pytest

from benchmarks.observability import verdict

WIDE = (0.90, 1.05)


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ((1.000, 1.015), "within"),
        ((1.025, 1.035), "OVER"),
        ((1.010, 1.030), "undecided"),
    ],
)
def test_cpu_a_call_decides_where_throughput_is_too_noisy(
    costs: tuple[float, float], said: str
) -> None:
    assert verdict(0.02, WIDE, costs) == said


def test_throughput_decides_where_it_is_the_surer() -> None:
    assert verdict(0.02, (0.985, 0.995), (0.9, 1.2)) == "within"
    assert verdict(0.02, (0.960, 0.975), (0.9, 1.2)) == "OVER"


def test_a_comparison_without_a_limit_has_no_verdict() -> None:
    assert verdict(None, WIDE, (1.0, 1.5)) == ""
