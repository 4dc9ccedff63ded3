"""Whatever happens to a checkpoint on its way, the answer is a generator or a CheckpointError."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from velatura.export.checkpoints import rosinality, stylegan2_ada
from velatura.export.directions.arrays import read_npy, read_npz
from velatura.export.errors import CheckpointError

from . import ada_snapshots, rosinality_files

Written = tuple[Callable[[Path], object], Path]
TRIES = 120


def _snapshot(path: Path) -> Written:
    source = ada_snapshots.build(resolution=8, channels=1)
    return stylegan2_ada.load_generator, ada_snapshots.write(path, 4, G_ema=source)


def _old_snapshot(path: Path) -> Written:
    source = ada_snapshots.build(resolution=8, channels=1)
    return stylegan2_ada.load_generator, ada_snapshots.write(path, 3, G_ema=source)


def _archive(path: Path) -> Written:
    return rosinality.load_generator, rosinality_files.write(path, rosinality_files.build())


def _old_archive(path: Path) -> Written:
    state = rosinality_files.build()
    return rosinality.load_generator, rosinality_files.write(path, state, modern=False)


def _array(path: Path) -> Written:
    np.save(path.with_suffix(".npy"), np.ones((1, 8)))
    return read_npy, path.with_suffix(".npy")


def _arrays(path: Path) -> Written:
    np.savez_compressed(path.with_suffix(".npz"), lat_comp=np.random.default_rng(0).random((4, 8)))
    return lambda given: read_npz(given, ("lat_comp",)), path.with_suffix(".npz")


def damage(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, lost, repeated, or the end cut off."""
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        start, kind = rng.randrange(len(damaged)), rng.random()
        if kind < 0.6:
            damaged[start] = rng.randrange(256)
        elif kind < 0.8:
            del damaged[start : start + rng.randrange(1, 20)]
        elif kind < 0.95:
            other = rng.randrange(len(damaged))
            damaged[start:start] = damaged[other : other + rng.randrange(1, 40)]
        else:
            del damaged[start + 1 :]
    return bytes(damaged)


@pytest.mark.parametrize(
    "write", [_snapshot, _old_snapshot, _archive, _old_archive, _array, _arrays]
)
def test_damage_is_reported_and_nothing_else_escapes(tmp_path: Path, write: Any) -> None:
    load, path = write(tmp_path / "file")
    load(path)
    whole, rng, messages = path.read_bytes(), random.Random(0), []
    for _ in range(TRIES):
        path.write_bytes(damage(whole, rng))
        try:
            load(path)
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > TRIES // 4
    assert all(str(path) in message for message in messages)
