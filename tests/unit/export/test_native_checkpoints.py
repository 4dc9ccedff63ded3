"""Our own weights: what was saved comes back, and what does not fit is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from google.protobuf import json_format

from velatura.export.avatar_networks import avatar_specs, load_avatar_weights, load_figures
from velatura.export.checkpoints import native
from velatura.export.errors import CheckpointError
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.segmenter import SegmenterConfig, build_segmenter
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.v1 import bundle_pb2


@pytest.fixture
def weights(tmp_path: Path, tiny_generator: Generator) -> Path:
    path = tmp_path / "avatar-generator.safetensors"
    native.save_weights(path, tiny_generator, tiny_generator.config)
    return path


def test_a_generator_comes_back_the_same(weights: Path, tiny_generator: Generator) -> None:
    loaded = native.load_generator(weights)
    assert loaded.config.channels == {4: 8, 8: 4}  # JSON made strings of the keys
    assert not loaded.training
    z, psi = torch.randn(2, 8), torch.ones(2)
    torch.testing.assert_close(loaded(z, psi), tiny_generator(z, psi), atol=0, rtol=0)


def test_half_precision_weights_are_widened(tmp_path: Path, tiny_generator: Generator) -> None:
    path = tmp_path / "half.safetensors"
    native.save_weights(path, tiny_generator, tiny_generator.config, half=True)
    loaded = native.load_generator(path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    z, psi = torch.randn(2, 8), torch.ones(2)
    torch.testing.assert_close(loaded(z, psi), tiny_generator(z, psi), atol=0.05, rtol=0.05)


def test_missing_files_are_named(weights: Path) -> None:
    with pytest.raises(CheckpointError, match=r"other\.json: no such file"):
        native.load_generator(weights.with_name("other.safetensors"))
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"avatar-generator\.safetensors: no such file"):
        native.load_generator(weights)


def test_weights_of_another_shape_are_refused(weights: Path) -> None:
    path = weights.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "w_dim": 16}))
    with pytest.raises(CheckpointError, match="weights and configuration differ"):
        native.load_generator(weights)


def test_an_unknown_field_is_named(weights: Path) -> None:
    path = weights.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": 3}))
    with pytest.raises(CheckpointError, match="GeneratorConfig has no field colour"):
        native.load_generator(weights)


def test_a_file_that_is_not_safetensors_is_refused(weights: Path) -> None:
    weights.write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        native.load_generator(weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": [0.0] * 7}, "'smile' has 7 offsets, the generator takes 6 × 8 = 48"),
        ({"layer_start": 4, "layer_end": 4}, "moves layers 4 to 4"),
        ({"layer_end": 9}, "moves layers 2 to 9"),
    ],
)
def test_directions_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    entry = {"name": "smile", "layer_start": 2, "layer_end": 4, "offsets": [0.0] * 48}
    path = tmp_path / "directions.json"
    path.write_text(json.dumps({"directions": [{**entry, **change}]}))
    with pytest.raises(CheckpointError, match=message):
        native.load_directions(path, 6, 8)


def test_directions_of_one_name_are_refused(tmp_path: Path) -> None:
    entry = {"name": "smile", "layer_start": 2, "layer_end": 4, "offsets": [0.0] * 48}
    path = tmp_path / "directions.json"
    path.write_text(json.dumps({"directions": [entry, entry]}))
    with pytest.raises(CheckpointError, match="occurs twice"):
        native.load_directions(path, 6, 8)


def _save_domain(folder: Path, encoder: EncoderConfig) -> None:
    generator = Generator(GeneratorConfig())
    native.save_weights(folder / "avatar-generator.safetensors", generator, generator.config)
    native.save_weights(folder / "avatar-encoder.safetensors", Encoder(encoder), encoder)
    config = SegmenterConfig("deeplabv3plus", "resnet18", ("background", "skin"))
    native.save_weights(folder / "avatar-segmenter.safetensors", build_segmenter(config), config)
    entry = bundle_pb2.DirectionEntry(name="a", layer_end=12, offsets=[0.0] * 12 * 128)
    (folder / "avatar-directions.json").write_text(
        json_format.MessageToJson(bundle_pb2.DirectionSet(directions=[entry]))
    )


def test_the_avatar_domain_loads_with_its_figures(tmp_path: Path) -> None:
    _save_domain(tmp_path, EncoderConfig())
    (tmp_path / "figures.json").write_text(
        json.dumps({"avatar-segmenter": [{"name": "mIoU", "value": 0.9, "measured_on": "x"}]})
    )
    specs = {spec.name: spec for spec in avatar_specs(load_avatar_weights(tmp_path))}
    assert list(specs) == [
        "avatar-synthesis",
        "avatar-mapping",
        "avatar-encoder",
        "avatar-segmenter",
    ]
    assert specs["avatar-segmenter"].labels == ("background", "skin")
    assert specs["avatar-segmenter"].figures[0].value == pytest.approx(0.9)
    assert specs["avatar-synthesis"].figures == ()
    inputs = specs["avatar-encoder"].sample(1, None)
    assert specs["avatar-encoder"].run_torch(inputs)["w_plus"].shape == (1, 12, 128)


def test_an_encoder_of_another_generator_is_refused(tmp_path: Path) -> None:
    _save_domain(tmp_path, EncoderConfig(num_ws=10))
    with pytest.raises(CheckpointError, match="10 × 128, the generator has 128 px and 12 × 128"):
        load_avatar_weights(tmp_path)


def test_figures_are_optional_but_must_have_their_form(tmp_path: Path) -> None:
    assert load_figures(tmp_path) == {}
    (tmp_path / "figures.json").write_text('{"avatar-encoder": [{"nom": 1}]}')
    with pytest.raises(CheckpointError, match=r"figures\.json: expected"):
        load_figures(tmp_path)
