"""BigGAN's parts against their formulas, the baked generator, its files and its graph."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from velatura.export.bundle import export_network
from velatura.export.checkpoints.class_generator import load_class_generator
from velatura.export.checkpoints.native import save_weights
from velatura.export.class_networks import class_generator_spec
from velatura.export.errors import CheckpointError
from velatura.export.generator_networks import Origin
from velatura.export.networks.biggan import (
    ClassGenerator,
    ClassGeneratorConfig,
    ConditionalBatchNorm,
    SelfAttention,
    UpBlock,
    baked,
)
from velatura.v1 import bundle_pb2

TINY = ClassGeneratorConfig(
    classes=("a", "b", "c"),
    resolution=16,
    chunk_dim=3,
    embedding_dim=4,
    channels={4: 16, 8: 16, 16: 8},
    attention_resolution=8,
)


@pytest.fixture(scope="module")
def warmed() -> ClassGenerator:
    """A tiny one after a few training passes, so that σ and the statistics are not the initial."""
    torch.manual_seed(0)
    network = ClassGenerator(TINY).train()
    with torch.no_grad():
        network.attention.gamma.fill_(0.8)
        for _ in range(60):
            network(*latents(16))
    return network


@pytest.fixture
def generator(warmed: ClassGenerator) -> ClassGenerator:
    """A copy that the test may change."""
    network = ClassGenerator(TINY)
    network.load_state_dict(warmed.state_dict())
    return network


def latents(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, TINY.z_dim), torch.eye(3)[torch.randint(3, (count,))]


def normalised(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (name, module)
        for name, module in network.named_modules()
        if parametrize.is_parametrized(module, "weight")
    ]


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(1)
    attention = SelfAttention(16, normalised=False).double()
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    assert torch.equal(attention(x), x), "γ starts at 0"
    attention.gamma.data.fill_(0.6)
    names = ("query", "key", "value", "out")
    wq, wk, wv, wo = (
        getattr(attention, name).weight.detach().numpy()[:, :, 0, 0] for name in names
    )
    places = x.numpy().reshape(2, 16, 15).transpose(0, 2, 1)  # [N, HW, C]
    expected = places.copy()
    for n in range(2):
        q, k, v = places[n] @ wq.T, places[n] @ wk.T, places[n] @ wv.T
        assert q.shape[1] == 2
        assert v.shape[1] == 8
        scores = q @ k.T / np.sqrt(q.shape[1])
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        expected[n] += 0.6 * (weights @ v) @ wo.T
    actual = attention(x).detach().numpy().reshape(2, 16, 15).transpose(0, 2, 1)
    assert np.abs(actual - expected).max() < 1e-12


def test_the_largest_singular_value_of_every_normalised_weight_is_one(
    generator: ClassGenerator,
) -> None:
    modules = normalised(generator)
    assert len(modules) == 1 + 2 * 3 + 4 + 1  # first layer, two blocks, attention, RGB
    generator.eval()
    for name, module in modules:
        weight = module.get_parameter("parametrizations.weight.original").flatten(1).double()
        sigma = torch.linalg.svdvals(weight)[0]
        largest = torch.linalg.svdvals(module.weight.flatten(1).double())[0]  # type: ignore[union-attr, operator]
        assert largest.item() == pytest.approx(1, abs=0.02), name
        ratio = weight / module.weight.flatten(1)  # type: ignore[union-attr, operator]
        assert ratio.median().item() == pytest.approx(sigma.item(), rel=0.02), name


@pytest.mark.parametrize("training", [True, False])
def test_conditional_batch_norm_is_its_formula(training: bool) -> None:
    torch.manual_seed(2)
    norm = ConditionalBatchNorm(5, 3).double()
    nn.init.normal_(norm.gain.weight)
    nn.init.normal_(norm.bias.weight)
    norm.norm.running_mean.copy_(torch.randn(5))  # type: ignore[union-attr]
    norm.norm.running_var.copy_(torch.rand(5) + 0.5)  # type: ignore[union-attr]
    x, condition = torch.randn(4, 5, 2, 3).double() * 2 + 1, torch.randn(4, 3).double()
    samples = x.numpy()
    if training:
        mean, variance = samples.mean(axis=(0, 2, 3)), samples.var(axis=(0, 2, 3))
    else:
        mean, variance = norm.norm.running_mean.numpy(), norm.norm.running_var.numpy()  # type: ignore[union-attr]
    gain = 1 + condition.numpy() @ norm.gain.weight.detach().numpy().T  # [N, C]
    bias = condition.numpy() @ norm.bias.weight.detach().numpy().T
    column = (1, 5, 1, 1)
    white = (samples - mean.reshape(column)) / np.sqrt(variance.reshape(column) + 1e-4)
    expected = white * gain[:, :, None, None] + bias[:, :, None, None]
    actual = norm.train(training)(x, condition).detach().numpy()
    assert np.abs(actual - expected).max() < 1e-10


def test_an_up_block_repeats_samples_before_it_convolves() -> None:
    torch.manual_seed(3)
    block = UpBlock(4, 6, 3, normalised=False).double().eval()
    nn.init.normal_(block.conv0.bias)  # type: ignore[arg-type]
    x, condition = torch.randn(2, 4, 5, 5).double(), torch.randn(2, 3).double()
    up = F.interpolate(F.relu(block.norm0(x, condition)), scale_factor=2.0, mode="nearest")
    h = block.conv1(F.relu(block.norm1(block.conv0(up), condition)))
    expected = h + block.skip(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    assert (block(x, condition) - expected).abs().max() < 1e-12


def test_images_are_bounded_and_do_not_depend_on_their_batch(generator: ClassGenerator) -> None:
    generator.eval()
    z, classes = latents(5)
    with torch.no_grad():
        images = generator(z * 5, classes)
        alone = torch.cat([generator(z[i : i + 1] * 5, classes[i : i + 1]) for i in range(5)])
    assert images.shape == (5, 3, 16, 16)
    assert float(images.abs().max()) <= 1
    assert (images - alone).abs().max() < 1e-5


def test_each_block_reads_its_own_chunk_of_z(generator: ClassGenerator) -> None:
    generator.eval()
    z, classes = latents(2)

    def stages(latent: Tensor) -> list[Tensor]:
        seen: list[Tensor] = []
        hooks = [
            module.register_forward_hook(lambda _m, _i, out: seen.append(out))
            for module in (generator.first, *generator.blocks)
        ]
        with torch.no_grad():
            generator(latent, classes)
        for hook in hooks:
            hook.remove()
        return seen

    before = stages(z)
    for chunk in range(3):
        moved = z.clone()
        moved[:, chunk * 3 : chunk * 3 + 3] += 1
        same = [torch.equal(a, b) for a, b in zip(before, stages(moved), strict=True)]
        assert same == [index < chunk for index in range(3)]


def test_the_class_reaches_the_image_and_mixtures_lie_between(generator: ClassGenerator) -> None:
    generator.eval()
    z = torch.randn(1, TINY.z_dim)

    def of(*weights: float) -> Tensor:
        with torch.no_grad():
            image: Tensor = generator(z, torch.tensor([weights], dtype=torch.float32))
        return image

    assert (of(1, 0, 0) - of(0, 1, 0)).abs().max() > 1e-3
    assert (of(0.99, 0.01, 0) - of(1, 0, 0)).abs().max() < (of(0, 1, 0) - of(1, 0, 0)).abs().max()


def test_baking_changes_nothing_but_the_form(generator: ClassGenerator) -> None:
    z, classes = latents(4)
    plain = baked(generator.train())
    assert generator.training
    assert not plain.training
    assert normalised(generator)
    assert not normalised(plain)
    assert not plain.config.spectral_norm
    with torch.no_grad():
        assert (plain(z, classes) - generator.eval()(z, classes)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ()}, "classes: name at least one"),
        ({"resolution": 24}, "resolution: 24"),
        ({"resolution": 4}, "resolution: 4"),
        ({"resolution": 32}, r"needs \[4, 8, 16, 32\]"),
        ({"attention_resolution": 4}, r"attention_resolution: 4 is none of \[8, 16\]"),
    ],
)
def test_a_configuration_that_cannot_be_built_names_its_field(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize("before_saving", [True, False])
def test_weights_come_back_baked(
    generator: ClassGenerator, tmp_path: Path, before_saving: bool
) -> None:
    z, classes = latents(3)
    with torch.no_grad():
        expected = generator.eval()(z, classes)
    saved = baked(generator) if before_saving else generator
    save_weights(tmp_path / "g.safetensors", saved, saved.config)
    loaded = load_class_generator(tmp_path / "g.safetensors")
    with torch.no_grad():
        assert (loaded(z, classes) - expected).abs().max() < 1e-6
    assert loaded.config == replace(TINY, spectral_norm=False)
    assert not loaded.training
    assert not normalised(loaded)


def test_a_damaged_configuration_is_a_checkpoint_error(
    generator: ClassGenerator, tmp_path: Path
) -> None:
    weights = tmp_path / "g.safetensors"
    save_weights(weights, generator, TINY)
    for change, message in (
        ({"chanels": {}}, "no field chanels"),
        ({"resolution": 24}, "resolution: 24"),
        ({"channels": {"four": 3}}, "ClassGeneratorConfig"),
        ({"classes": ["a"]}, "weights and configuration differ"),
    ):
        weights.with_suffix(".json").write_text(json.dumps(asdict(TINY) | change))
        with pytest.raises(CheckpointError, match=message):
            load_class_generator(weights)


def test_the_graph_computes_what_torch_does(generator: ClassGenerator, tmp_path: Path) -> None:
    origin = Origin("Apache-2.0", "here", "nothing", "all", "picture")
    (tmp_path / "cards").mkdir()
    spec = class_generator_spec("letters", baked(generator), origin, "letter")
    entry = export_network(spec, tmp_path)
    assert entry.role == bundle_pb2.ROLE_CLASS_GENERATOR
    assert list(entry.labels) == ["a", "b", "c"]
    assert [(p.name, list(p.shape)) for p in (*entry.inputs, *entry.outputs)] == [
        ("z", [-1, 9]), ("class_weights", [-1, 3]), ("image", [-1, 3, 16, 16]),
    ]  # fmt: skip
    assert {v.batch_size for v in entry.verifications} == {1, 3, 8}
    assert max(v.max_abs_error for v in entry.verifications) < 1e-5
    assert "z and a class (letter)" in (tmp_path / entry.card).read_text()
