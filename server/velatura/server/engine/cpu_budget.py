"""How many CPUs this process may really use: its affinity and its cgroup's quota, not the machine's
core count.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def cpu_budget(
    cgroup_root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self/cgroup")
) -> int:
    """CPUs that this process may keep busy, at least 1.

    A quota of 1.5 CPUs counts as 2: with a thread less the half CPU would idle.
    """
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cpus = os.cpu_count() or 1
    quota = cgroup_quota(cgroup_root, proc)
    return max(1, cpus if quota is None else min(cpus, math.ceil(quota)))


def cgroup_quota(root: Path, proc: Path) -> float | None:
    """CPUs that the tightest cgroup of this process's ancestry allows (version 2, then 1); None for
    no limit.
    """
    limits = [
        limit
        for base, group in _own_groups(root, proc)
        for directory in (group, *group.parents)
        if directory.is_relative_to(base)
        for limit in (_v2_limit(directory), _v1_limit(directory))
        if limit is not None
    ]
    return min(limits, default=None)


def _own_groups(root: Path, proc: Path) -> list[tuple[Path, Path]]:
    """(mount point, own directory) of every hierarchy that may limit the CPU."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return [(root, root)]
    groups = [(root, root)]  # inside a cgroup namespace the own group is mounted as the root
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            groups.append((root, root / path.lstrip("/")))
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                groups.append((root / name, root / name / path.lstrip("/")))
    return groups


def _v2_limit(directory: Path) -> float | None:
    try:
        quota, period = (directory / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _v1_limit(directory: Path) -> float | None:
    try:
        quota = int((directory / "cpu.cfs_quota_us").read_text())
        period = int((directory / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
