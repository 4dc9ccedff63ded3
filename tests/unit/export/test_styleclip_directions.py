"""Directions of StyleSpace find their rows of W+, or are refused with the share that is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from velatura.export.checkpoints import native
from velatura.export.cli import app
from velatura.export.directions import styleclip
from velatura.export.directions.registry import find, write_directions
from velatura.export.directions.text import require_owner
from velatura.export.errors import CheckpointError
from velatura.export.networks.stylegan2 import Generator
from velatura.v1 import bundle_pb2

from .conftest import CONFIG, random_generator

NUM_WS, W_DIM = CONFIG.num_ws, CONFIG.w_dim
# Of an 8 px generator with 8 and 4 feature maps, in StyleCLIP's order: name, row of W+, channels.
ORDER = [
    ("b4.conv1", 0, 8), ("b4.torgb", 1, 8), ("b8.conv0", 1, 8), ("b8.conv1", 2, 4),
    ("b8.torgb", 3, 4),
]  # fmt: skip
ALL, CONVOLUTIONS = 32, 20


def styles(generator: Generator, w_plus: torch.Tensor) -> dict[str, np.ndarray]:
    """What the affine layers give for w_plus [num_ws, w_dim], caught in a run of the network."""
    caught: dict[str, np.ndarray] = {}
    hooks = []
    for name, _, _ in ORDER:
        affine = generator.synthesis.get_submodule(f"{name}.affine")

        def catch(_m: Any, _i: Any, out: torch.Tensor, name: str = name) -> None:
            caught[name] = out[0].double().numpy()

        hooks.append(affine.register_forward_hook(catch))
    with torch.inference_mode():
        generator.synthesis(w_plus[None])
    for hook in hooks:
        hook.remove()
    return caught


def reachable(generator: Generator, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """A change of W+ and the change of all styles that it makes, in order."""
    offsets = torch.randn(NUM_WS, W_DIM, generator=torch.Generator().manual_seed(seed))
    base = torch.zeros(NUM_WS, W_DIM)
    before, after = styles(generator, base), styles(generator, base + offsets)
    return offsets, np.concatenate([after[name] - before[name] for name, _, _ in ORDER])


def rows(entry: bundle_pb2.DirectionEntry) -> np.ndarray:
    return np.array(entry.offsets, np.float64).reshape(NUM_WS, W_DIM)


def residual(entry: bundle_pb2.DirectionEntry) -> float:
    (figure,) = entry.figures
    assert figure.name == "residual of S"
    return figure.value


def test_styles_come_in_the_networks_order(tiny_generator: Generator) -> None:
    found = styleclip.style_layers(tiny_generator)
    assert [(each.name, each.row, each.channels) for each in found] == ORDER
    assert [each.rgb for each in found] == [False, True, False, False, True]


@pytest.mark.parametrize("kind", ["npy", "row", "npz", "named"])
def test_a_change_that_w_plus_can_make_is_made(
    tmp_path: Path, tiny_generator: Generator, kind: str
) -> None:
    _, change = reachable(tiny_generator)
    parts = np.split(change, np.cumsum([count for _, _, count in ORDER])[:-1])
    path = tmp_path / f"smile.{'npy' if kind in ('npy', 'row') else 'npz'}"
    if kind in ("npy", "row"):
        np.save(path, change if kind == "npy" else change[None])
    elif kind == "npz":
        np.savez(path, *parts)
    else:
        np.savez(path, **{n: p for (n, _, _), p in reversed(list(zip(ORDER, parts, strict=True)))})
    entry = styleclip.load_direction(path, tiny_generator)
    assert (entry.name, entry.space, entry.method) == ("smile", "W+", "imported")
    assert (entry.layer_start, entry.layer_end, entry.max_strength) == (0, NUM_WS, 10)
    assert residual(entry) < 1e-6
    assert "of S" in entry.description
    base = torch.randn(NUM_WS, W_DIM)
    before = styles(tiny_generator, base)
    after = styles(tiny_generator, base + torch.from_numpy(rows(entry)).float())
    moved = np.concatenate([after[name] - before[name] for name, _, _ in ORDER])
    np.testing.assert_allclose(moved, change, atol=1e-4)


def test_convolutions_alone_leave_the_rgb_layers_as_still_as_they_can(
    tmp_path: Path, tiny_generator: Generator
) -> None:
    change = np.zeros(CONVOLUTIONS)
    # b8.conv0, which shares row 1 with b4.torgb.
    change[8:16] = np.random.default_rng(1).standard_normal(8)
    np.save(tmp_path / "hair.npy", change)
    entry = styleclip.load_direction(tmp_path / "hair.npy", tiny_generator, limit=1)
    found = rows(entry)
    assert not found[[0, 2, 3]].any()
    torgb, conv0 = styleclip.style_layers(tiny_generator)[1:3]
    error = np.concatenate([torgb.weight @ found[1], conv0.weight @ found[1] - change[8:16]])
    share = float(error @ error / (change @ change))
    assert 0.05 < share < 0.95
    assert residual(entry) == pytest.approx(share, abs=1e-4)
    # The least squares: the gradient is zero, and no step nearby does better.
    stacked = np.concatenate([torgb.weight, conv0.weight])
    np.testing.assert_allclose(stacked.T @ error, 0, atol=1e-5)
    assert f"{share:.1%} of it is lost" in entry.description
    with pytest.raises(CheckpointError, match=rf"W\+ cannot give {share:.0%} of .* than 1%"):
        styleclip.load_direction(tmp_path / "hair.npy", tiny_generator, limit=0.01)


def test_layers_choose_rows_and_count_only_their_own_loss(
    tmp_path: Path, tiny_generator: Generator
) -> None:
    _, change = reachable(tiny_generator, 2)
    change[8:16] += 5  # b4.torgb of row 1, against b8.conv0
    np.save(tmp_path / "a.npy", change)
    assert residual(styleclip.load_direction(tmp_path / "a.npy", tiny_generator, limit=1)) > 0.01
    entry = styleclip.load_direction(tmp_path / "a.npy", tiny_generator, layers=(2, 4))
    assert residual(entry) < 1e-6
    assert (entry.layer_start, entry.layer_end) == (2, 4)
    assert not rows(entry)[:2].any()
    assert rows(entry)[2:].any(axis=1).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones(7), r"shape \[7\]; this generator has 20 or 32 styles"),
        (np.ones((CONVOLUTIONS, 512)), r"StyleCLIP's table of all channels \(fs3\)"),
        (np.ones((2, 10)), r"shape \[2, 10\]; this generator has"),
        (np.zeros(ALL), "changes no style of layers 0:4"),
        (np.full(ALL, np.inf), "not finite"),
        ({"arr_0": np.ones(8)}, r"holds 1 arrays \(arr_0, …\); give arr_0 to arr_4 of all layers"),
        ({"b4.conv1": np.ones(9)}, r"b4\.conv1 has shape \[9\]; b4\.conv1 has 8 styles"),
        ({"b4.conv1": np.ones(8), "b9.conv1": np.ones(8)}, "holds 2 arrays"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, tiny_generator: Generator, values: Any, message: str
) -> None:
    path = tmp_path / ("a.npz" if isinstance(values, dict) else "a.npy")
    if isinstance(values, dict):
        np.savez(path, **values)
    else:
        np.save(path, values)
    with pytest.raises(CheckpointError, match=message):
        styleclip.load_direction(path, tiny_generator)


def test_lists_that_numpy_pickles_are_not_read(tmp_path: Path, tiny_generator: Generator) -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.ones(8), np.ones(4)]
    np.save(tmp_path / "a.npy", ragged, allow_pickle=True)
    with pytest.raises(CheckpointError, match="pickled objects are not read"):
        styleclip.load_direction(tmp_path / "a.npy", tiny_generator)
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CheckpointError, match=r"not a whole \.npz"):
        styleclip.load_direction(tmp_path / "a.npz", tiny_generator)
    with pytest.raises(CheckpointError, match=r"come as \.npy or \.npz"):
        styleclip.load_direction(tmp_path / "a.pt", tiny_generator)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_directions_of_z_are_refused_whatever_their_file(
    tmp_path: Path, tiny_generator: Generator, suffix: str
) -> None:
    source = str(tmp_path / f"a{suffix}")
    with pytest.raises(CheckpointError, match="space 'Z' has no offsets in W"):
        find(source, tiny_generator, None, 5, "Z")
    with pytest.raises(CheckpointError, match="--space 'X': give W"):
        find(source, tiny_generator, None, 5, "X")


def test_the_command_writes_one_for_this_generator_only(
    tmp_path: Path, tiny_generator: Generator
) -> None:
    ours, others = tmp_path / "ours.safetensors", tmp_path / "others.safetensors"
    native.save_weights(ours, tiny_generator, CONFIG)
    native.save_weights(others, random_generator(5), CONFIG)
    _, change = reachable(tiny_generator)
    source, out = tmp_path / "smile.npy", tmp_path / "directions.json"
    np.save(source, change)
    arguments = ["directions", str(source), "-g", str(ours), "-o", str(out), "--space", "S"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = native.load_directions(out, NUM_WS, W_DIM)
    assert [(each.name, each.space) for each in found.directions] == [("smile", "W+")]
    require_owner(found, ours, out)
    with pytest.raises(CheckpointError, match="belongs to weights of"):
        require_owner(found, others, out)
    # The same change is out of the other's reach.
    with pytest.raises(CheckpointError, match="more than 1%"):
        write_directions(str(source), others, out, space="S", max_residual=0.01)
