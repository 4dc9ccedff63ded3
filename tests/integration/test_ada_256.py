"""A StyleGAN2-ADA snapshot of the official 256 px configuration, random weights: from the pickle to
a bundle, and what its graphs make compared with torch. Takes most of a minute of one core."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from velatura.export.bundle import export_network, read_manifest, write_bundle
from velatura.export.checkpoints.stylegan2_ada import load_generator
from velatura.export.generator_networks import mapping_spec
from velatura.export.own_bundle import OwnFiles, load_own, origin_of
from velatura.export.verify import open_graph, run_graph

from ..unit.export import ada_snapshots

SECONDS = 120.0
TOLERANCE = 1e-3
BATCHES = (1, 2, 5)
PSIS = (0.0, 0.7, 1.0)
ORIGIN = origin_of("", "")


@pytest.mark.timeout(1200)  # of the clock, which other work on the machine can stretch
def test_a_snapshot_of_256_px_is_exported_in_time_and_agrees_with_torch(tmp_path: Path) -> None:
    path = ada_snapshots.write(tmp_path / "network.pkl", 3, G_ema=ada_snapshots.paper256())
    started = time.process_time()
    own = load_own(OwnFiles(path), "ada", ORIGIN)
    bundle = tmp_path / "bundle"
    write_bundle(
        bundle,
        name="ada",
        specs=own.specs,
        generators=[(own.generator, own.directions)],
        size_limit=None,
    )
    # Seconds of processor: one core at work is the clock's time on a machine that is free.
    assert time.process_time() - started < SECONDS

    (entry,) = read_manifest(bundle).generators
    assert (entry.resolution, entry.num_ws, entry.w_dim, entry.z_dim) == (256, 14, 512, 512)
    generator = load_generator(path)
    assert generator.config.channels == {
        4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64,
    }  # fmt: skip
    mapping, synthesis = (open_graph(bundle / f"ada-{p}.onnx") for p in ("mapping", "synthesis"))
    for batch in BATCHES:
        for psi in PSIS:
            z, psis = torch.randn(batch, 512), torch.full((batch,), psi)
            w = run_graph(mapping, {"z": z.numpy(), "truncation_psi": psis.numpy()})["w"]
            w_plus = np.repeat(w[:, None], entry.num_ws, axis=1)
            image = run_graph(synthesis, {"w_plus": w_plus})["image"]
            with torch.inference_mode():
                wanted = generator(z, psis).numpy()
            assert wanted.std() > 0.1
            error = float(np.abs(image - wanted).max())
            assert error <= TOLERANCE, f"batch {batch}, psi {psi}: {error:.1e}"


def test_its_shallow_and_conditional_mapping_is_exported(tmp_path: Path) -> None:
    """Two layers and ten classes, at full width; the synthesis is the same."""
    source = ada_snapshots.build(
        z_dim=512, c_dim=10, w_dim=512, resolution=16, channels=2, num_layers=2
    )
    generator = load_generator(ada_snapshots.write(tmp_path / "network.pkl", G_ema=source))
    spec = mapping_spec("ada-mapping", generator, ORIGIN, [str(i) for i in range(10)])
    (tmp_path / "cards").mkdir()
    graph = open_graph(tmp_path / export_network(spec, tmp_path).file)
    for batch in BATCHES:
        for psi in PSIS:
            z, psis = torch.randn(batch, 512), torch.full((batch,), psi)
            classes = torch.eye(10)[torch.arange(batch)]
            values = {"z": z, "truncation_psi": psis, "class_weights": classes}
            w = run_graph(graph, {name: value.numpy() for name, value in values.items()})["w"]
            with torch.inference_mode():
                wanted = generator.mapping(z, psis, classes).numpy()
            assert np.abs(w - wanted).max() <= TOLERANCE
