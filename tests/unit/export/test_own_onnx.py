"""ONNX files of the user's own: a small manifest, the role's tensors, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from velatura.export.audit import audit
from velatura.export.bundle import read_manifest, write_bundle
from velatura.export.cli import app
from velatura.export.errors import ExportError
from velatura.export.own_onnx import load_onnx, style_entries
from velatura.export.verify import open_graph, run_graph
from velatura.v1 import bundle_pb2

from . import onnx_files as files

NCHW_MANIFEST = """\
name = "mosaic"
role = "fixed-style"
file = "mosaic.onnx"
license = "MIT"
"""
FREE = ("n", 3, "h", "w")


def nchw(nodes: list[onnx.NodeProto], **more: object) -> onnx.ModelProto:
    """A style network from `x` to `y` that is NCHW already."""
    return files.model(nodes, [files.value("x", *FREE)], [files.value("y", *FREE)], **more)  # type: ignore[arg-type]


def identity(**more: object) -> onnx.ModelProto:
    return nchw([helper.make_node("Identity", ["x"], ["y"])], **more)


def written(path: Path, tmp_path: Path) -> Path:
    network = load_onnx(path)
    network.write(tmp_path / "out.onnx")
    return tmp_path / "out.onnx"


def through(path: Path, tmp_path: Path, image: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    session = open_graph(written(path, tmp_path))
    return run_graph(session, {"image": image})["image_out"]


def pictures(*shape: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(1).random(shape).astype(np.float32)


def test_a_keras_style_network_becomes_the_roles(tmp_path: Path) -> None:
    path = files.write(tmp_path, files.nhwc_style())
    assert len(files.NHWC_MANIFEST.splitlines()) < 20
    network = load_onnx(path)
    checked = network.write(tmp_path / "out.onnx")
    assert {(v.batch_size, v.size) for v in checked} == {
        (batch, size) for batch in (1, 2, 5) for size in (96, 108)
    }
    image = pictures(5, 3, 20, 28)
    made = run_graph(open_graph(tmp_path / "out.onnx"), {"image": image})["image_out"]
    assert np.abs(made - files.styled(image)).max() < 1e-5
    assert made.std() > 0.1
    (style,) = style_entries(network)
    assert (style.name, style.model, style.index) == ("mosaic", "mosaic", 0)


def test_the_command_writes_a_bundle_of_it(tmp_path: Path) -> None:
    path = files.write(tmp_path, files.nhwc_style())
    out = tmp_path / "bundle"
    done = CliRunner().invoke(app, ["bundle", "--network", str(path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    manifest = read_manifest(out)
    (model,) = manifest.models
    assert (model.role, model.license) == (bundle_pb2.ROLE_FIXED_STYLE, "MIT")
    assert [style.name for style in manifest.styles] == ["mosaic"]
    assert list(audit(out)) == [("mosaic", "")]
    assert "each item alone" in (out / model.card).read_text()


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    path = str(files.write(tmp_path, files.nhwc_style()))
    command = ["bundle", "--network", path, "--network", path, "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert "style presets mosaic occur twice" in done.output


def test_nothing_but_the_basics_is_needed_where_the_file_agrees(tmp_path: Path) -> None:
    image = pictures(3, 3, 16, 24)
    made = through(files.write(tmp_path, identity(), NCHW_MANIFEST), tmp_path, image)
    assert np.array_equal(made, image)


def test_normalised_bgr_pictures(tmp_path: Path) -> None:
    """The file doubles what it gets; means and deviations are in its own order of channels."""
    double = nchw([helper.make_node("Add", ["x", "x"], ["y"])])
    manifest = NCHW_MANIFEST + (
        "[inputs.image]\nchannels = 'BGR'\nmean = [0.1, 0.2, 0.3]\nstd = [0.5, 0.4, 0.2]\n"
        "[outputs.image_out]\nrange = [0, 10]\n"
    )
    image = pictures(2, 3, 16, 16)
    made = through(files.write(tmp_path, double, manifest), tmp_path, image)
    mean, std = (np.array(v)[:, None, None] for v in ([0.1, 0.2, 0.3], [0.5, 0.4, 0.2]))
    expected = np.clip(2 * (image[:, ::-1] - mean) / std / 10, 0, 1)
    assert np.abs(made - expected).max() < 1e-6


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_element_types_are_converted(kind: int, tmp_path: Path) -> None:
    network = files.model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [files.value("x", *FREE, kind=kind)],
        [files.value("y", *FREE, kind=kind)],
    )
    ranges = "[inputs.image]\nrange = [0, 255]\n[outputs.image_out]\nrange = [0, 255]\n"
    image = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16).repeat(3, axis=1)
    made = through(files.write(tmp_path, network, NCHW_MANIFEST + ranges), tmp_path, image)
    assert np.abs(made - image).max() < (1e-3 if kind == TensorProto.FLOAT16 else 1e-6)


def test_values_outside_of_the_range_are_clipped(tmp_path: Path) -> None:
    wide = nchw([helper.make_node("Mul", ["x", "f"], ["y"])], constants={"f": np.float32(3)})
    made = through(files.write(tmp_path, wide, NCHW_MANIFEST), tmp_path, pictures(1, 3, 16, 16))
    assert made.max() == 1


def test_a_batch_declared_as_one_is_freed_where_the_graph_allows(tmp_path: Path) -> None:
    image = pictures(4, 3, 16, 20)
    made = through(files.write(tmp_path, files.nhwc_style(batch=1)), tmp_path, image)
    assert np.abs(made - files.styled(image)).max() < 1e-5


def test_a_frozen_batch_is_refused(tmp_path: Path) -> None:
    frozen = files.model(
        [
            helper.make_node("Shape", ["x"], ["whole"]),
            helper.make_node("Slice", ["whole", "two", "four"], ["size"]),
            helper.make_node("Concat", ["one_three", "size"], ["shape"], axis=0),
            helper.make_node("Reshape", ["x", "shape"], ["y"]),
        ],
        [files.value("x", 1, 3, "h", "w")],
        [files.value("y", 1, 3, "h", "w")],
        {"two": np.array([2]), "four": np.array([4]), "one_three": np.array([1, 3])},
    )
    network = load_onnx(files.write(tmp_path, frozen, NCHW_MANIFEST))
    with pytest.raises(ExportError, match=r"batch of 2 \(its batch is declared as 1: x\); export"):
        network.write(tmp_path / "out.onnx")
    with pytest.raises(ExportError, match="fixed batch of 4"):
        load_onnx(files.write(tmp_path, files.nhwc_style(batch=4)))


def test_a_network_that_mixes_its_batch_is_refused(tmp_path: Path) -> None:
    mixing = nchw(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ]
    )
    network = load_onnx(files.write(tmp_path, mixing, NCHW_MANIFEST))
    with pytest.raises(ExportError, match=r"at batch 2 at 64×96 differs .* mixes the items"):
        network.write(tmp_path / "out.onnx")


def halved(stride: int) -> onnx.ModelProto:
    """Pools and enlarges by `stride`, so that only its multiples come back as they were."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        helper.make_node("Resize", ["p", "", "scales"], ["y"], mode="nearest"),
    ]
    return nchw(nodes, constants={"scales": np.array([1, 1, stride, stride], np.float32)})


def test_multiples_are_stated_and_kept(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"for one at 108×60; if heights .* state multiple_of"):
        written(files.write(tmp_path, halved(8), NCHW_MANIFEST), tmp_path)
    network = load_onnx(files.write(tmp_path, halved(8), NCHW_MANIFEST + "multiple_of = 8\n"))
    checked = network.write(tmp_path / "out.onnx")
    assert {v.size for v in checked} == {96, 112}
    assert network.inputs[0].to_spec().multiple_of == 8


def test_the_bundle_of_an_odd_multiple_passes_its_audit(tmp_path: Path) -> None:
    path = files.write(tmp_path, halved(7), NCHW_MANIFEST + "multiple_of = 7\n")
    out = tmp_path / "bundle"
    write_bundle(out, name="odd", specs=[load_onnx(path)], size_limit=None)
    assert list(audit(out)) == [("mosaic", "")]


def test_subgraphs_keep_seeing_what_is_around_them(tmp_path: Path) -> None:
    """Both branches read tensors of the outer graph, as those of tf2onnx's loops do."""
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["x", factor], [f"{factor}_out"])],
            factor, [], [files.value(f"{factor}_out", *FREE)],
        )
        for factor in ("half", "third")
    ]  # fmt: skip
    network = nchw(
        [
            helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
            helper.make_node("Less", ["top", "half"], ["dark"]),
            helper.make_node("If", ["dark"], ["y"], then_branch=branches[0],
                             else_branch=branches[1]),
        ],
        constants={"half": np.array(0.5, np.float32), "third": np.array(1 / 3, np.float32)},
    )  # fmt: skip
    path = files.write(tmp_path, network, NCHW_MANIFEST)
    image = pictures(1, 3, 16, 16) * 0.4
    assert np.allclose(through(path, tmp_path, image), image / 2)
    assert np.allclose(through(path, tmp_path, image * 2), image * 2 / 3)


def test_custom_operators_are_refused_wherever_they_hide(tmp_path: Path) -> None:
    custom = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    network = nchw([custom])
    network.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ExportError, match=r"outside standard ONNX: com\.microsoft\.Gelu"):
        load_onnx(files.write(tmp_path, network, NCHW_MANIFEST))
    branch = helper.make_graph(
        [helper.make_node("FusedConv", [], ["z"], domain="my")], "b", [], [files.value("z", *FREE)]
    )
    hidden = nchw([helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
                  constants={"c": np.array(True)})  # fmt: skip
    hidden.opset_import.append(helper.make_opsetid("my", 1))
    with pytest.raises(ExportError, match=r"outside standard ONNX: my\.FusedConv"):
        load_onnx(files.write(tmp_path, hidden, NCHW_MANIFEST))


def test_weights_beside_the_file_are_taken_in_and_others_refused(tmp_path: Path) -> None:
    network = files.nhwc_style()
    path = files.write(tmp_path, network)
    onnx.save(
        network, tmp_path / "mosaic.onnx", save_as_external_data=True, location="w.bin",
        size_threshold=0,
    )  # fmt: skip
    assert (tmp_path / "w.bin").exists()
    image = pictures(1, 3, 16, 16)
    assert np.abs(through(path, tmp_path, image) - files.styled(image)).max() < 1e-5
    outside = onnx.load(tmp_path / "mosaic.onnx", load_external_data=False)
    for tensor in outside.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../w.bin" if entry.key == "location" else entry.value
    (tmp_path / "mosaic.onnx").write_bytes(outside.SerializeToString())
    with pytest.raises(ExportError, match=r"lie outside its folder: \.\./w\.bin"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("x", "not TOML"),
        ("", "name, file, license: missing"),
        (NCHW_MANIFEST + "colour = 1\n", "colour: unknown; known are name"),
        (NCHW_MANIFEST.replace("fixed-style", "painter"), "role: 'painter'; known are"),
        (NCHW_MANIFEST.replace("fixed-style", "encoder"), "role: 'encoder' is part of a generator"),
        (NCHW_MANIFEST.replace('"mosaic"', '"My Style"'), "name: 'My Style'; give"),
        (NCHW_MANIFEST + "multiple_of = 0\n", "multiple_of: 0; give a whole number"),
        (NCHW_MANIFEST + "multiple_of = 512\n", "number from 1 to 256"),
        (NCHW_MANIFEST + "[inputs.image]\nrange = [1, 0]\n", r"inputs\.image\.range: 1\.0 to 0"),
        (NCHW_MANIFEST + "[inputs.image]\nstd = [1, 0, 1]\n", r"inputs\.image\.std: a deviation"),
        (NCHW_MANIFEST + "[inputs.image]\nlayout = 'CHW'\n", r"inputs\.image\.layout: 'CHW'"),
        (NCHW_MANIFEST + "[inputs.image]\ntensor = 'in'\n", "has no input 'in'; it has 'x'"),
        (NCHW_MANIFEST + "[inputs.picture]\n", r"inputs\.picture: the role has the inputs image"),
        (NCHW_MANIFEST + "[inputs.image]\nlayout = 'NHWC'\n", 'set layout = "NCHW"'),
        (NCHW_MANIFEST + "labels = ['a', 'a']\n", "labels: a name occurs twice"),
    ],
)
def test_mistakes_in_the_manifest_are_named(manifest: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=rf"--network .*mosaic\.toml: .*{message}"):
        load_onnx(files.write(tmp_path, identity(), manifest))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (files.nhwc_style(height=224, width=224), "has a fixed size; fixed_style gets pictures"),
        (identity(opset=8), "is of opset 8; opsets 9 to"),
    ],
)
def test_networks_that_cannot_serve_are_refused(
    network: onnx.ModelProto, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        load_onnx(files.write(tmp_path, network))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = files.write(tmp_path, identity(), NCHW_MANIFEST)
    (tmp_path / "mosaic.onnx").write_bytes(b"\x08\x07junk")
    with pytest.raises(ExportError, match="not a valid ONNX file"):
        load_onnx(path)
    (tmp_path / "mosaic.onnx").unlink()
    with pytest.raises(ExportError, match=r"mosaic\.onnx: no such file"):
        load_onnx(path)


def test_a_segmenter_has_one_size_and_labels(tmp_path: Path) -> None:
    """NHWC logits of free size; the manifest gives the size."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]
    shape = ("n", "h", "w", 3)
    network = files.model(
        nodes, [files.value("x", *shape)], [files.value("y", *shape)], {"k": files.WEIGHTS}
    )
    manifest = (
        'name = "parts"\nrole = "segmenter"\nfile = "mosaic.onnx"\nlicense = "MIT"\n{}'
        '[inputs.image]\nlayout = "NHWC"\n[outputs.logits]\nlayout = "NHWC"\n'
    )
    with pytest.raises(ExportError, match="size: missing; segmenter works at one size"):
        load_onnx(files.write(tmp_path, network, manifest.format("")))
    text = manifest.format('size = 32\nlabels = ["a", "b"]\n')
    with pytest.raises(ExportError, match="labels: 2 names for 3 classes"):
        load_onnx(files.write(tmp_path, network, text))
    path = files.write(tmp_path, network, manifest.format("size = 32\n"))
    loaded = load_onnx(path)
    assert loaded.labels == ("0", "1", "2")
    assert [port.shape for port in (*loaded.inputs, *loaded.outputs)] == [(-1, 3, 32, 32)] * 2
    assert (loaded.inputs[0].low, loaded.inputs[0].high) == (-1, 1)
    assert {v.batch_size for v in loaded.write(tmp_path / "out.onnx")} == {1, 2, 5}


def test_networks_without_a_role_keep_their_tensors(tmp_path: Path) -> None:
    network = files.model(
        [helper.make_node("MatMul", ["a", "w"], ["b"]), helper.make_node("Neg", ["b"], ["c"])],
        [files.value("a", "n", 4)],
        [files.value("b", "n", 2), files.value("c", "n", 2)],
        {"w": np.ones((4, 2), np.float32)},
    )
    manifest = 'name = "mine"\nfile = "mosaic.onnx"\nlicense = "MIT"\n[inputs.x]\ntensor = "a"\n'
    loaded = load_onnx(files.write(tmp_path, network, manifest))
    loaded.write(tmp_path / "out.onnx")
    assert loaded.role == bundle_pb2.ROLE_UNSPECIFIED
    assert [port.name for port in (*loaded.inputs, *loaded.outputs)] == ["x", "b", "c"]
    made = run_graph(open_graph(tmp_path / "out.onnx"), {"x": np.ones((2, 4), np.float32)})
    assert np.array_equal(made["c"], np.full((2, 2), -4, np.float32))
    assert loaded.parameters == 8
