"""`velatura-export bundle --generator`: somebody's own networks become a bundle, or are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from velatura.export.audit import audit
from velatura.export.bundle import export_network, read_manifest
from velatura.export.checkpoints import native
from velatura.export.cli import app
from velatura.export.convert import convert
from velatura.export.directions.registry import write_directions
from velatura.export.errors import CheckpointError, ExportError
from velatura.export.generator_networks import generator_entry, synthesis_spec
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.segmenter import SegmenterConfig, build_segmenter
from velatura.export.networks.stylegan2 import Generator
from velatura.export.own_bundle import OwnFiles, bundle_name, load_own, origin_of
from velatura.export.verify import open_graph, run_graph
from velatura.v1 import bundle_pb2

from . import rosinality_files
from .conftest import CONFIG, random_generator

ORIGIN = origin_of("", "")


def run(*arguments: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["bundle", *map(str, arguments)], env={"COLUMNS": "400"})
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> OwnFiles:
    """A generator with an encoder, a segmenter of another size, and directions."""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    native.save_weights(folder / "My Faces.safetensors", random_generator(), CONFIG)
    shape = EncoderConfig(8, CONFIG.num_ws, CONFIG.w_dim, (4,), (1,), 4)
    native.save_weights(folder / "encoder.safetensors", Encoder(shape), shape)
    kinds = SegmenterConfig("deeplabv3plus", "tu-mobilenetv3_small_100", ("a", "b"), 64, (32,))
    native.save_weights(folder / "segmenter.safetensors", build_segmenter(kinds), kinds)
    generator = folder / "My Faces.safetensors"
    write_directions("sefa", generator, folder / "directions.json", layers="0:2", count=2)
    return OwnFiles(
        generator,
        folder / "encoder.safetensors",
        folder / "segmenter.safetensors",
        folder / "directions.json",
    )


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional generator of three classes."""
    torch.manual_seed(1)
    config = replace(CONFIG, classes=3)
    path = tmp_path_factory.mktemp("conditional") / "pets.safetensors"
    native.save_weights(path, Generator(config), config)
    return path


@pytest.fixture(scope="module")
def alone(files: OwnFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of nothing but the generator."""
    out = tmp_path_factory.mktemp("alone") / "bundle"
    described = ["--license", "CC0-1.0", "--data", "My cats."]
    assert "my-faces-synthesis" in run("--generator", files.generator, "--out", out, *described)
    return out


def test_a_generator_alone_is_a_bundle(alone: Path) -> None:
    manifest = read_manifest(alone)
    assert manifest.name == "my-faces"
    assert [model.name for model in manifest.models] == ["my-faces-synthesis", "my-faces-mapping"]
    (generator,) = manifest.generators
    assert (generator.name, generator.encoder, generator.resolution) == ("my-faces", "", 8)
    assert not manifest.styles
    assert not manifest.default_segmenter
    assert {model.license for model in manifest.models} == {"CC0-1.0"}
    assert "My cats." in (alone / "cards" / "my-faces-synthesis.md").read_text()
    assert not any(dict(audit(alone)).values())


def test_its_graphs_are_its_own(files: OwnFiles, alone: Path) -> None:
    z, psi = torch.randn(2, CONFIG.z_dim), torch.tensor([0.5, 1.0])
    mapping, synthesis = (
        open_graph(alone / f"my-faces-{part}.onnx") for part in ("mapping", "synthesis")
    )
    w = run_graph(mapping, {"z": z.numpy(), "truncation_psi": psi.numpy()})["w"]
    w_plus = w[:, None].repeat(CONFIG.num_ws, axis=1)
    image = run_graph(synthesis, {"w_plus": w_plus})["image"]
    with torch.inference_mode():
        wanted = native.load_generator(files.generator)(z, psi)
    torch.testing.assert_close(torch.from_numpy(image), wanted, atol=1e-4, rtol=1e-4)


def test_every_part_finds_its_place(files: OwnFiles) -> None:
    own = load_own(files, "cats", ORIGIN)
    roles = [bundle_pb2.Role.Name(spec.role) for spec in own.specs]
    assert roles == ["ROLE_SYNTHESIS", "ROLE_MAPPING", "ROLE_ENCODER", "ROLE_SEGMENTER"]
    assert own.generator.encoder == "cats-encoder"
    assert own.segmenter == "cats-segmenter"
    assert own.specs[3].labels == ("a", "b")
    assert [direction.name for direction in own.directions.directions] == ["sefa-0", "sefa-1"]


def test_classes_are_named_or_numbered(conditional: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n\n  wolf \n")
    for files, wanted in (
        (OwnFiles(conditional), ("0", "1", "2")),
        (OwnFiles(conditional, classes=names), ("cat", "dog", "wolf")),
    ):
        mapping = load_own(files, "pets", ORIGIN).specs[1]
        assert mapping.labels == wanted
        assert [port.name for port in mapping.inputs] == ["z", "truncation_psi", "class_weights"]
    names.write_text("cat\ncat\ndog\n")
    with pytest.raises(CheckpointError, match=r"3 names, 2 of them different; .* has 3 classes"):
        load_own(OwnFiles(conditional, classes=names), "pets", ORIGIN)


def test_a_class_conditional_mapping_is_exported_with_its_classes(
    conditional: Path, tmp_path: Path
) -> None:
    described = load_own(OwnFiles(conditional), "pets", ORIGIN).specs[1]
    spec = replace(described, batch_sizes=(1, 2, 4))
    (tmp_path / "cards").mkdir()
    entry = export_network(spec, tmp_path)
    assert list(entry.labels) == ["0", "1", "2"]
    assert list(entry.inputs[2].shape) == [-1, 3]
    assert {each.batch_size for each in entry.verifications} == {1, 2, 4}
    z, classes = torch.randn(1, CONFIG.z_dim), torch.eye(3)
    graph = open_graph(tmp_path / entry.file)
    found = [
        run_graph(
            graph,
            {
                "z": z.numpy(),
                "truncation_psi": torch.ones(1).numpy(),
                "class_weights": each[None].numpy(),
            },
        )["w"]
        for each in classes
    ]
    assert abs(found[0] - found[1]).max() > 1e-3


def test_a_converted_checkpoint_of_256_px_is_described_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = {4: 8, 8: 4, 16: 4, 32: 4, 64: 4, 128: 2, 256: 2}
    monkeypatch.setattr(rosinality_files, "CHANNELS", channels)
    foreign = tmp_path / "foreign.pt"
    rosinality_files.write(foreign, rosinality_files.build())
    convert(foreign, tmp_path / "big.safetensors")
    own = load_own(OwnFiles(tmp_path / "big.safetensors"), "big", ORIGIN)
    generator, synthesis = own.generator, own.specs[0]
    assert (generator.resolution, generator.num_ws, generator.w_dim) == (256, 14, 8)
    image = synthesis.run_torch(synthesis.sample(2, None))["image"]
    assert image.shape == (2, 3, 256, 256)


@pytest.mark.parametrize(("options", "written_for"), [((), "cpu"), (("--provider", "cuda"), "")])
def test_the_manifest_says_whom_a_graph_was_written_for(
    options: tuple[str, ...], written_for: str, tmp_path: Path
) -> None:
    config = replace(CONFIG, resample_filter=(1, 3, 3, 1))
    torch.manual_seed(0)
    native.save_weights(tmp_path / "g.safetensors", Generator(config).eval(), config)
    run("--generator", tmp_path / "g.safetensors", "--out", tmp_path / "out", *options)
    models = {model.name: model for model in read_manifest(tmp_path / "out").models}
    assert models["g-synthesis"].written_for == written_for
    assert models["g-mapping"].written_for == ""


def test_large_images_are_checked_in_small_batches() -> None:
    sizes = dict.fromkeys((4, 8, 16, 32, 64, 128, 256, 512), 1)
    with torch.device("meta"):
        large = Generator(replace(CONFIG, resolution=512, channels=sizes))
    assert synthesis_spec("large", large, ORIGIN).batch_sizes == (1, 2, 3)
    assert synthesis_spec("small", random_generator(), ORIGIN).batch_sizes == (1, 3, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "e.safetensors"], "--encoder: only with --generator"),
        (["--styles", "--data", "x"], "--styles, --data: only with --generator FILE or other"),
        (["--generator", "{g}"], "--out: give the folder"),
        (["--generator", "net.pkl", "--out", "{o}"], "net.pkl: No such file"),
        (["--generator", "{d}", "--out", "{o}"], "neither a pickle nor an archive"),
        (["--generator", "{g}", "--encoder", "{d}", "--out", "{o}"], "no archive of torch.save"),
        (["--generator", "no.safetensors", "--out", "{o}"], "no.json: no such file"),
        (["--generator", "{g}", "--out", "{o}", "--name", "My Faces"], "--name 'My Faces': give 1"),
        (["--generator", "{g}", "--out", "{o}", "--classes", "{d}"], "has no classes; leave"),
        (["--generator", "{g}", "--out", "{o}", "--directions", "none.json"], "no such file"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    files: OwnFiles, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "bundle"
    values = {"g": files.generator, "o": out, "d": files.directions}
    assert message in run(*(text.format(**values) for text in arguments), code=2)
    assert not out.exists()


def test_parts_of_another_generator_are_refused(files: OwnFiles, tmp_path: Path) -> None:
    config = replace(CONFIG, w_dim=6)
    other = tmp_path / "other.safetensors"
    native.save_weights(other, Generator(config), config)
    with pytest.raises(CheckpointError, match=r"--encoder .* W\+ of 4 × 8, the generator has"):
        load_own(OwnFiles(other, encoder=files.encoder), "other", ORIGIN)
    with pytest.raises(CheckpointError, match="offsets, the generator takes"):
        load_own(OwnFiles(other, directions=files.directions), "other", ORIGIN)
    native.save_weights(other, random_generator(3), CONFIG)  # of the same shape
    with pytest.raises(CheckpointError, match="find the directions again"):
        load_own(OwnFiles(other, directions=files.directions), "other", ORIGIN)


def test_names_come_from_the_file() -> None:
    assert bundle_name("", Path("runs/Cats & Dogs_2.safetensors")) == "cats-dogs_2"
    assert bundle_name("mine", Path("x.safetensors")) == "mine"
    with pytest.raises(ExportError, match="lower case"):
        bundle_name("", Path("___ÄÖ.safetensors").with_name("ÄÖ.safetensors"))


def test_a_generator_without_an_encoder_says_so() -> None:
    entry = generator_entry("a", random_generator(), synthesis="a-synthesis", mapping="a-mapping")
    assert entry.encoder == ""
    assert len(entry.w_avg) == CONFIG.w_dim
