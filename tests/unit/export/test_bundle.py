"""What is written can be read, describes itself, and replaces an older bundle whole or never."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from velatura.export.audit import audit
from velatura.export.bundle import (
    MANIFEST,
    export_network,
    read_manifest,
    sha256_of,
    write_bundle,
)
from velatura.export.checkpoints.native import load_directions
from velatura.export.cli import app
from velatura.export.errors import ExportError
from velatura.export.specification import NetworkSpec
from velatura.v1 import bundle_pb2


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def test_the_manifest_round_trips_and_describes_the_files(tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    assert manifest.schema_version == 1
    synthesis, encoder = manifest.models
    assert synthesis.role == bundle_pb2.ROLE_SYNTHESIS
    assert synthesis.sha256 == sha256_of(tiny_bundle / synthesis.file)
    assert list(synthesis.inputs[0].shape) == [-1, 4, 8]
    assert (synthesis.outputs[0].range_min, synthesis.outputs[0].range_max) == (-1, 1)
    assert synthesis.figures[0].unit == "dB"
    assert encoder.parameters > 0
    assert encoder.flops > 0
    assert [v.batch_size for v in encoder.verifications] == [1, 3, 8]


def test_field_names_are_those_of_the_schema(tiny_bundle: Path) -> None:
    text = (tiny_bundle / MANIFEST).read_text()
    assert '"schema_version"' in text
    assert "schemaVersion" not in text


def test_directions_belong_to_the_synthesis_file(tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    (generator,) = manifest.generators
    found = load_directions(tiny_bundle / generator.directions, 4, 8)
    assert found.generator_sha256 == manifest.models[0].sha256
    assert found.directions[0].generator_sha256 == manifest.models[0].sha256
    assert found.directions[0].offsets[1 * 8] == pytest.approx(0.5)


def test_every_network_has_a_card(tiny_bundle: Path) -> None:
    for model in read_manifest(tiny_bundle).models:
        text = (tiny_bundle / model.card).read_text()
        assert text.startswith(f"# {model.name}\n")
        assert model.sha256 in text
        assert "None." in text  # the training data
        assert f"[{model.name}]({model.card})" in (tiny_bundle / "README.md").read_text()


def test_exporting_again_gives_the_same_bytes(
    tiny_bundle: Path, tiny_synthesis: NetworkSpec, tmp_path: Path
) -> None:
    (tmp_path / "cards").mkdir()
    entry = export_network(tiny_synthesis, tmp_path)
    assert entry == read_manifest(tiny_bundle).models[0]
    for name in (entry.file, entry.card):
        assert (tmp_path / name).read_bytes() == (tiny_bundle / name).read_bytes()


def test_a_failure_leaves_the_older_bundle_and_no_debris(copy: Path, linear: NetworkSpec) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(ExportError, match="the limit is 0"):
        write_bundle(copy, name="big", specs=[linear], size_limit=100)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_an_older_bundle_is_replaced_whole(copy: Path, linear: NetworkSpec) -> None:
    write_bundle(copy, name="new", specs=[linear])
    assert sorted(p.name for p in copy.iterdir()) == ["README.md", "cards", "linear.onnx", MANIFEST]
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"holds files but no manifest\.json"):
        write_bundle(tmp_path, name="x", specs=[])
    assert (tmp_path / "precious.txt").exists()


def test_a_generator_of_an_unknown_network_is_refused(tmp_path: Path, linear: NetworkSpec) -> None:
    entry = bundle_pb2.GeneratorEntry(name="g", synthesis="linear", encoder="nowhere")
    generators = [(entry, bundle_pb2.DirectionSet())]
    with pytest.raises(ExportError, match="encoder 'nowhere' is not among the networks"):
        write_bundle(tmp_path / "out", name="x", specs=[linear], generators=generators)
    assert not (tmp_path / "out").exists()


def test_networks_of_one_name_are_refused(tmp_path: Path, linear: NetworkSpec) -> None:
    with pytest.raises(ExportError, match="'linear' occurs twice"):
        write_bundle(tmp_path / "out", name="x", specs=[linear, linear])


def test_a_sound_bundle_passes_the_audit(tiny_bundle: Path) -> None:
    found = dict(audit(tiny_bundle))
    assert found == {"tiny-synthesis": "", "tiny-encoder": "", "tiny-directions.json": ""}


def test_the_audit_finds_a_changed_file(copy: Path) -> None:
    path = copy / "tiny-encoder.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    found = dict(audit(copy))
    assert "the manifest says" in found["tiny-encoder"]
    assert found["tiny-synthesis"] == ""


def test_the_audit_finds_directions_of_another_generator(copy: Path) -> None:
    path = copy / "tiny-directions.json"
    path.write_text(path.read_text().replace(read_manifest(copy).models[0].sha256, "0" * 64))
    assert "belongs to synthesis 0000" in dict(audit(copy))["tiny-directions.json"]


def test_the_audit_refuses_paths_that_leave_the_bundle(copy: Path) -> None:
    shutil.copy(copy / "tiny-encoder.onnx", copy.parent / "outside.onnx")
    text = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(text.replace('"tiny-encoder.onnx"', '"../outside.onnx"'))
    assert "lies outside the bundle" in dict(audit(copy))["tiny-encoder"]


def test_the_command_line_inspects_and_verifies(copy: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["inspect", str(copy)], env={"COLUMNS": "140"})
    assert shown.exit_code == 0
    assert "tiny-synthesis" in shown.output
    assert "any × 4 × 8" in shown.output
    assert runner.invoke(app, ["verify", str(copy)]).exit_code == 0
    (copy / "tiny-synthesis.onnx").unlink()
    broken = runner.invoke(app, ["verify", str(copy)])
    assert broken.exit_code == 1
    assert "no such file in the bundle" in broken.output


def test_the_command_line_names_what_is_missing(tmp_path: Path) -> None:
    runner = CliRunner()
    assert "is not a bundle" in runner.invoke(app, ["inspect", str(tmp_path)]).output
    out = tmp_path / "out"
    done = runner.invoke(app, ["bundle", "-w", str(tmp_path), "-o", str(out)])
    assert done.exit_code == 2
    assert "avatar-generator.json: no such file" in done.output.replace("\n", "")
    assert not out.exists()
