"""The CPUs that networks share."""

from __future__ import annotations

import pytest

from velatura.server.engine.gate import FEW_CPUS, Gate


@pytest.mark.parametrize(
    ("cpus", "used", "leaves"),
    [
        (None, 0, True),  # networks on a GPU
        (FEW_CPUS, 0, False),
        (FEW_CPUS, 1, False),
        (FEW_CPUS + 1, 0, False),  # nobody is there
        (FEW_CPUS + 1, 1, True),
    ],
)
def test_many_cpus_are_left_for_others_while_networks_run(
    cpus: int | None, used: int, leaves: bool
) -> None:
    gate = Gate(cpus)
    if used:
        gate.take(used)
    assert gate.leaves_cpus is leaves
