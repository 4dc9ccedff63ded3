"""Directions of other projects' files and SeFa's own fit the generator or are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import json_format
from typer.testing import CliRunner

from velatura.export.checkpoints import native
from velatura.export.cli import app
from velatura.export.directions import ganspace, imported, sefa
from velatura.export.directions.components import SAMPLES, image_change
from velatura.export.directions.registry import parse_layers, write_directions
from velatura.export.directions.text import require_owner, write_direction_set
from velatura.export.errors import CheckpointError
from velatura.export.latents import sample_w
from velatura.export.networks.stylegan2 import Generator
from velatura.v1 import bundle_pb2

from .conftest import CONFIG, random_generator

NUM_WS, W_DIM = CONFIG.num_ws, CONFIG.w_dim


def offsets(entry: bundle_pb2.DirectionEntry) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[num_ws, w_dim], where a direction of W is kept as one row for its layers."""
    stored = np.array(entry.offsets, np.float64).reshape(-1, W_DIM)
    assert len(stored) == (1 if entry.space == "W" else NUM_WS)
    rows = np.zeros((NUM_WS, W_DIM))
    here = slice(entry.layer_start, entry.layer_end)
    rows[here] = stored if entry.space == "W" else stored[here]
    if entry.space == "W+":
        np.testing.assert_array_equal(rows, stored)
    return rows


def test_an_interfacegan_boundary_moves_every_layer_alike(tmp_path: Path) -> None:
    normal = np.random.default_rng(0).standard_normal((1, W_DIM)).astype(np.float32)
    np.save(tmp_path / "smile.npy", normal)
    entry = imported.load_interfacegan(tmp_path / "smile.npy", CONFIG)
    assert (entry.name, entry.space, entry.method) == ("smile", "W", "imported")
    assert (entry.layer_start, entry.layer_end) == (0, NUM_WS)
    np.testing.assert_allclose(offsets(entry), np.repeat(normal, NUM_WS, axis=0), rtol=1e-6)


def test_layers_outside_the_range_stay(tmp_path: Path) -> None:
    np.save(tmp_path / "age.npy", np.ones((1, W_DIM)))
    entry = imported.load_interfacegan(tmp_path / "age.npy", CONFIG, layers=(1, 3))
    assert (entry.layer_start, entry.layer_end) == (1, 3)
    assert offsets(entry)[1:3].all()
    assert not offsets(entry)[[0, *range(3, NUM_WS)]].any()


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("shape", "space"), [((1, W_DIM), "W"), ((W_DIM,), "W"), ((1, NUM_WS, W_DIM), "W+")]
)
def test_an_e4e_tensor_is_tagged_with_its_space(
    tmp_path: Path, shape: tuple[int, ...], space: str, modern: bool
) -> None:
    tensor = torch.randn(shape)
    torch.save(tensor, tmp_path / "pose.pt", _use_new_zipfile_serialization=modern)
    entry = imported.load_e4e(tmp_path / "pose.pt", CONFIG)
    assert (entry.name, entry.space) == ("pose", space)
    wanted = tensor.expand(1, NUM_WS, W_DIM)[0] if space == "W+" else tensor.expand(NUM_WS, W_DIM)
    np.testing.assert_allclose(offsets(entry), wanted.numpy(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "pt"])
def test_ganspace_components_are_scaled_to_one_deviation(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    components = rng.standard_normal((4, 1, W_DIM)).astype(np.float32)
    deviations = np.array([4, 3, 2, 1], np.float32)
    path = tmp_path / f"pca.{kind[-3:].strip()}"
    if kind == "pt":
        tensors = {"comp": components, "std": deviations, "mean": components[0]}
        torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    else:
        save: Any = np.savez if kind == "npz" else np.savez_compressed
        save(
            path,
            act_comp=np.zeros((4, 1, 2, 2, 2)),
            lat_comp=components,
            lat_stdev=deviations,
            lat_mean=components[:1],
            var_ratio=deviations,
        )
    entries = imported.load_ganspace(path, CONFIG, layers=(0, 2), count=3)
    assert [entry.name for entry in entries] == ["ganspace-0", "ganspace-1", "ganspace-2"]
    for i, entry in enumerate(entries):
        assert (entry.space, entry.method) == ("W", "ganspace")
        np.testing.assert_allclose(offsets(entry)[0], components[i, 0] * deviations[i], rtol=1e-6)


class Executes:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_files_that_would_run_code_are_refused(tmp_path: Path) -> None:
    hostile: Any = Executes(f"touch {tmp_path / 'executed'}")
    np.save(tmp_path / "a.npy", np.array([hostile], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", lat_comp=np.array([hostile], dtype=object), lat_stdev=np.ones(1))
    torch.save(hostile, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="pickled objects are not read"):
        imported.load_interfacegan(tmp_path / "a.npy", CONFIG)
    with pytest.raises(CheckpointError, match="pickled objects are not read"):
        imported.load_ganspace(tmp_path / "a.npz", CONFIG)
    with pytest.raises(CheckpointError, match=rf"global {os.system.__module__}\.system"):
        imported.load_e4e(tmp_path / "a.pt", CONFIG)
    assert not (tmp_path / "executed").exists()


def test_an_array_that_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((1, W_DIM)))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(1, 8), }      ", b"(1, 8000000), }"))
    assert path.read_bytes() != data
    with pytest.raises(CheckpointError, match="needs 64000000 bytes, 64 follow"):
        imported.load_interfacegan(path, CONFIG)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.ones((1, 512)), {}, r"shape \[1, 512\].*belongs to another generator"),
        (np.ones((NUM_WS + 1, W_DIM)), {}, r"W\+ of \[4, 8\]"),
        (np.zeros((1, W_DIM)), {}, "moves nothing in layers 0:4"),
        (np.full((1, W_DIM), np.nan), {}, "not finite"),
        (np.ones((1, W_DIM)), {"layers": (2, 9)}, "layers 2:9 must lie in 0:4"),
        (np.ones((1, W_DIM)), {"space": "Z"}, "space 'Z' has no offsets in W"),
        (np.ones((1, W_DIM)), {"space": "W+"}, r"the shape is that of W, not of W\+"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, values: Any, options: dict[str, Any], message: str
) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(CheckpointError, match=message):
        imported.load_interfacegan(tmp_path / "a.npy", CONFIG, **options)


def test_sefa_finds_what_moves_the_styles_most(tiny_generator: Generator) -> None:
    stacked = torch.cat(sefa.affine_weights(tiny_generator)).double()
    entries = sefa.find_directions(tiny_generator, W_DIM)
    vectors = torch.stack([torch.from_numpy(offsets(entry)[0]) for entry in entries])
    units = vectors / vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        units @ units.T, torch.eye(W_DIM, dtype=torch.float64), atol=1e-5, rtol=0
    )
    effects = (stacked @ units.T).norm(dim=0)
    assert (effects.diff() <= 1e-6).all()
    torch.testing.assert_close(
        effects[0], torch.linalg.matrix_norm(stacked, 2), atol=1e-5, rtol=1e-5
    )
    random = torch.nn.functional.normalize(torch.randn(200, W_DIM, dtype=torch.float64))
    assert (stacked @ random.T).norm(dim=0).max() < effects[0]


def test_sefa_counts_strength_in_deviations_of_w(tiny_generator: Generator) -> None:
    z = torch.randn(20_000, CONFIG.z_dim)
    w = tiny_generator.mapping(z, torch.ones(20_000)).detach().double()
    for entry in sefa.find_directions(tiny_generator, 3, layers=(1, 3)):
        assert (entry.method, entry.space) == ("sefa", "W")
        assert (entry.layer_start, entry.layer_end) == (1, 3)
        vector = torch.from_numpy(offsets(entry)[1])
        length = float(vector.norm())
        assert float((w @ vector / length).std()) == pytest.approx(length, rel=0.05)


def test_sefa_refuses_layers_that_no_convolution_reads(tiny_generator: Generator) -> None:
    with pytest.raises(CheckpointError, match="no convolution reads them"):
        sefa.find_directions(tiny_generator, layers=(NUM_WS - 1, NUM_WS))
    with pytest.raises(CheckpointError, match="9 directions: W has 8 dimensions"):
        sefa.find_directions(tiny_generator, 9)


def test_ganspace_finds_the_principal_components_of_w(tiny_generator: Generator) -> None:
    w = sample_w(tiny_generator.mapping, SAMPLES).double().numpy()
    _, singular, axes = np.linalg.svd(w - w.mean(axis=0), full_matrices=False)
    entries = ganspace.find_directions(tiny_generator, 4, layers=(1, 3))
    assert [entry.name for entry in entries] == [f"ganspace-{rank}" for rank in range(4)]
    for rank, entry in enumerate(entries):
        assert (entry.method, entry.space) == ("ganspace", "W")
        assert (entry.layer_start, entry.layer_end) == (1, 3)
        deviation = singular[rank] / np.sqrt(len(w) - 1)
        largest = axes[rank][np.abs(axes[rank]).argmax()]
        wanted = axes[rank] * np.sign(largest) * deviation
        np.testing.assert_allclose(offsets(entry)[1], wanted, rtol=1e-4, atol=1e-6)
        share = {figure.name: figure.value for figure in entry.figures}["share of variation"]
        assert share == pytest.approx(singular[rank] ** 2 / (singular**2).sum(), abs=1e-4)


@pytest.mark.parametrize("find", [sefa.find_directions, ganspace.find_directions])
def test_a_useful_strength_stays_among_the_samples(tiny_generator: Generator, find: Any) -> None:
    w = sample_w(tiny_generator.mapping, SAMPLES).double().numpy()
    for entry in find(tiny_generator, 3):
        vector = offsets(entry)[0]
        along = (w - w.mean(axis=0)) @ vector / (vector @ vector)
        assert entry.min_strength < -1 < entry.default_strength == 1 < entry.max_strength
        inside = (along >= entry.min_strength) & (along <= entry.max_strength)
        assert inside.mean() == pytest.approx(0.98, abs=0.005)


def test_the_change_is_that_of_the_images(tiny_generator: Generator) -> None:
    """Against a slow reading of the same words: truncate, move the layers, count in 8 bits."""
    w = sample_w(tiny_generator.mapping, 3)
    offset = torch.linspace(-1, 1, W_DIM)
    average = tiny_generator.mapping.w_avg
    rows = torch.stack([average + 0.7 * (each - average) for each in w])
    before = rows[:, None].repeat(1, NUM_WS, 1)
    after = before.clone()
    after[:, 2] += offset
    with torch.inference_mode():
        images = [tiny_generator.synthesis(each).clamp(-1, 1).double() for each in (before, after)]
    wanted = float((images[1] - images[0]).abs().mean() * 127.5)
    assert wanted > 0.1
    got = image_change(tiny_generator, w, offset, (2, 3))
    assert got == pytest.approx(wanted, rel=1e-4)


def test_ganspace_refuses_what_it_cannot_find(tiny_generator: Generator) -> None:
    with pytest.raises(CheckpointError, match="layers 3:5 must lie in 0:4"):
        ganspace.find_directions(tiny_generator, layers=(3, 5))
    with pytest.raises(CheckpointError, match="9 directions: W has 8 dimensions"):
        ganspace.find_directions(tiny_generator, 9)


def test_bands_are_those_of_style_mixing() -> None:
    large, middling = replace(CONFIG, resolution=128), replace(CONFIG, resolution=16)
    assert [parse_layers(band, large) for band in ("coarse", "middle", "fine", "2:5", "")] == [
        (0, 4), (4, 8), (8, 12), (2, 5), None,
    ]  # fmt: skip
    assert parse_layers("middle", middling) == (4, 6)
    with pytest.raises(CheckpointError, match="'fine' start at 8; there are 6"):
        parse_layers("fine", middling)


def test_directions_of_other_weights_are_refused(tmp_path: Path, tiny_generator: Generator) -> None:
    ours, others = tmp_path / "ours.safetensors", tmp_path / "others.safetensors"
    native.save_weights(ours, tiny_generator, CONFIG)
    native.save_weights(others, random_generator(5), CONFIG)
    path = tmp_path / "directions.json"
    assert write_directions("ganspace", ours, path, count=2) == ["ganspace-0", "ganspace-1"]
    found = native.load_directions(path, NUM_WS, W_DIM)
    require_owner(found, ours, path)
    with pytest.raises(CheckpointError, match=r"belongs to weights of .*others\.safetensors has"):
        require_owner(found, others, path)


def test_a_set_of_directions_reads_back_as_written(tmp_path: Path) -> None:
    entry = bundle_pb2.DirectionEntry(name='a "b"', space="W", layer_end=1, offsets=[0.1, -1e-9])
    for kept in ([], [entry], [entry, entry]):
        message = bundle_pb2.DirectionSet(generator_sha256="12", directions=kept)
        write_direction_set(tmp_path / "d.json", message)
        text = (tmp_path / "d.json").read_text()
        assert json_format.Parse(text, bundle_pb2.DirectionSet()) == message
        assert len(text.splitlines()) == max(len(kept), 1) + 3


@pytest.mark.parametrize(
    "source", ["sefa", "ganspace", "smile.npy", "smile.pt", "pca.npz", "pca.pt"]
)
def test_the_command_writes_what_the_bundle_takes(
    tmp_path: Path, tiny_generator: Generator, source: str
) -> None:
    weights, out = tmp_path / "generator.safetensors", tmp_path / "out" / "directions.json"
    native.save_weights(weights, tiny_generator, tiny_generator.config)
    np.save(tmp_path / "smile.npy", np.ones((1, W_DIM)))
    torch.save(torch.ones(1, W_DIM), tmp_path / "smile.pt")
    np.savez(tmp_path / "pca.npz", lat_comp=np.ones((2, 1, W_DIM)), lat_stdev=np.ones(2))
    torch.save({"comp": torch.ones(2, 1, W_DIM), "std": torch.ones(2)}, tmp_path / "pca.pt")
    given = source if source in ("sefa", "ganspace") else str(tmp_path / source)
    arguments = ["directions", given, "-g", str(weights), "-o", str(out), "--layers", "0:2"]
    result = CliRunner().invoke(app, [*arguments, "--count", "2"])
    assert result.exit_code == 0, result.output
    found = native.load_directions(out, NUM_WS, W_DIM)
    assert len(found.directions) == (1 if source.startswith("smile") else 2)
    assert {(d.layer_start, d.layer_end) for d in found.directions} == {(0, 2)}


def test_the_command_refuses_layers_of_another_form(
    tmp_path: Path, tiny_generator: Generator
) -> None:
    weights = tmp_path / "generator.safetensors"
    native.save_weights(weights, tiny_generator, tiny_generator.config)
    arguments = ["directions", "sefa", "-g", str(weights), "-o", str(tmp_path / "d.json")]
    result = CliRunner().invoke(app, [*arguments, "--layers", "3-4"])
    assert result.exit_code == 2
    assert "as 4:8" in result.output
