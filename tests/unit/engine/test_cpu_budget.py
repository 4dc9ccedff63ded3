"""Thread counts come from the tightest of affinity and cgroup quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from velatura.server.engine.cpu_budget import cgroup_quota, cpu_budget


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_version_2_takes_the_tightest_ancestor(tmp_path: Path) -> None:
    root, proc = tmp_path / "cgroup", tmp_path / "self"
    write(proc, "0::/pods/mine\n")
    write(root / "pods/mine/cpu.max", "max 100000\n")
    write(root / "pods/cpu.max", "150000 100000\n")
    write(root / "cpu.max", "800000 100000\n")
    assert cgroup_quota(root, proc) == 1.5


def test_version_2_in_a_namespace(tmp_path: Path) -> None:
    root, proc = tmp_path / "cgroup", tmp_path / "self"
    write(proc, "0::/\n")
    write(root / "cpu.max", "50000 100000\n")
    assert cgroup_quota(root, proc) == 0.5
    assert cpu_budget(root, proc) == 1


def test_version_1(tmp_path: Path) -> None:
    root, proc = tmp_path / "cgroup", tmp_path / "self"
    write(proc, "4:memory:/x\n2:cpu,cpuacct:/docker/abc\n")
    write(root / "cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "300000\n")
    write(root / "cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n")
    write(root / "cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    write(root / "cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert cgroup_quota(root, proc) == 3.0


def test_no_limit_leaves_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cgroup_quota(tmp_path, tmp_path / "none") is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5})
    assert cpu_budget(tmp_path, tmp_path / "none") == 3


def test_nonsense_is_no_limit(tmp_path: Path) -> None:
    write(tmp_path / "self", "0::/\n")
    write(tmp_path / "cpu.max", "lots\n")
    assert cgroup_quota(tmp_path, tmp_path / "self") is None
