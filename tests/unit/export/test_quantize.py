"""int8: measured against float32, and written only where it pays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from velatura.export import quantize as quantize_module
from velatura.export.audit import audit
from velatura.export.bundle import read_manifest
from velatura.export.cli import app
from velatura.export.compress import halve_weights, widen_weights
from velatura.export.errors import ExportError
from velatura.export.formats import Quantisation
from velatura.export.quantize import Outcome, mean_iou, quantize
from velatura.export.quantized_bundle import BundleNetworks


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("method", list(Quantisation))
def test_an_encoder_keeps_its_images_and_its_weights_become_int8(
    tiny_bundle: Path, images: Path, tmp_path: Path, method: Quantisation
) -> None:
    networks = BundleNetworks(tiny_bundle)
    pictures = networks.pictures("tiny-encoder", images, 6)
    assert pictures.shape == (6, 3, 8, 8)
    assert -1 <= pictures.min() < -0.5 < 0.5 < pictures.max() <= 1
    out = tmp_path / "int8.onnx"
    done = quantize(networks, "tiny-encoder", pictures, method, out, seconds=0)
    assert (done.measure, done.images) == ("PSNR", 3)
    assert done.quality > 25
    assert set(done.speed) == {1, 8}
    types = {tensor.data_type for tensor in onnx.load(out).graph.initializer}
    assert onnx.TensorProto.INT8 in types
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".onnx"] == ["int8.onnx"]


def test_only_encoders_and_segmenters_are_tried(tiny_bundle: Path) -> None:
    with pytest.raises(ExportError, match=r"--network tiny-synthesis: .*\['tiny-encoder'\]"):
        BundleNetworks(tiny_bundle).picture_network("tiny-synthesis")


def test_pictures_are_asked_for_where_nothing_draws_them(tiny_bundle: Path) -> None:
    with pytest.raises(ExportError, match="give --images FOLDER"):
        BundleNetworks(tiny_bundle).generated("tiny-encoder", 4)


def test_int8_pays_when_it_is_close_and_faster_at_every_batch() -> None:
    def outcome(quality: float, *speed: float) -> Outcome:
        speeds = dict(zip((1, 8), speed, strict=True))
        return Outcome(Quantisation.STATIC, "mIoU", quality, speeds, (2, 1), 8)

    assert outcome(0.99, 1.5, 1.3).pays
    assert not outcome(0.9, 1.5, 1.3).pays
    assert not outcome(0.99, 1.5, 1.1).pays


def test_mean_iou_is_that_of_the_classes_that_occur() -> None:
    expected, actual = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 3])
    assert mean_iou(expected, actual) == pytest.approx((1 + 0.5 + 0) / 3)
    assert mean_iou(expected, expected) == 1


def test_a_bundle_is_written_only_where_it_pays(
    tiny_bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    command = ["quantize", str(tiny_bundle), "--network", "tiny-encoder", "--images", str(images)]
    command += ["--seconds", "0", "--out", str(out)]
    monkeypatch.setattr(quantize_module, "LEAST_SPEED", 1e6)
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 0, refused.output
    assert "it does not pay: nothing was written" in refused.output
    assert not out.exists()
    monkeypatch.setattr(quantize_module, "LEAST_SPEED", 0.0)
    monkeypatch.setattr(quantize_module, "LEAST_PSNR", 0.0)
    assert "written" in CliRunner().invoke(app, command).output
    assert not any(problem for _, problem in audit(out))
    before, after = (read_manifest(folder).models[1] for folder in (tiny_bundle, out))
    assert before.sha256 != after.sha256
    assert after.sha256 in (out / after.card).read_text()
    assert "int8/PSNR" in {figure.name for figure in after.figures}
    assert not after.verifications


def test_weights_stored_in_half_are_widened_to_the_same_numbers(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float16)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 64])
        for name in ("x", "y")
    ]
    weight = onnx.numpy_helper.from_array(values.astype(np.float32), "w")
    graph = onnx.helper.make_graph([node], "probe", tensors[:1], tensors[1:], [weight])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    path, wide = tmp_path / "half.onnx", tmp_path / "wide.onnx"
    onnx.save(model, path)
    halve_weights(path, "probe")
    widen_weights(path, wide)
    (widened,) = onnx.load(wide).graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(widened), values.astype(np.float32))
    assert [n.op_type for n in onnx.load(wide).graph.node] == ["MatMul"]
