"""Segmenters of other projects: recognised by their tensors, loaded strictly, the same numbers."""

from __future__ import annotations

import codecs
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torchvision.models import segmentation

from velatura.export.bundle import export_network
from velatura.export.checkpoints import native, torchvision_deeplab, vainf_deeplab
from velatura.export.checkpoints.bisenet import CELEBA_MASK
from velatura.export.checkpoints.loaded_segmenter import IMAGENET_MEAN, IMAGENET_STD, VOC
from velatura.export.checkpoints.state_dicts import StateDict
from velatura.export.errors import CheckpointError
from velatura.export.foreign_segmenter import foreign_segmenter_spec, load_foreign_segmenter
from velatura.export.networks.segmenter import SegmenterConfig, build_segmenter
from velatura.export.own_bundle import OwnFiles, load_own, origin_of
from velatura.v1 import bundle_pb2

from . import segmenter_files as files
from .conftest import CONFIG, random_generator

ORIGIN = origin_of("", "")
State = OrderedDict[str, Tensor]


def pictures(batch: int = 2, size: int = 64) -> Tensor:
    """[N, 3, S, S] in [-1, 1]."""
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(3)) * 2 - 1


def normalised(images: Tensor) -> Tensor:
    """As torchvision's transforms have them, in float64."""
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], dtype=torch.float64)
    seen: Tensor = ((images.double() + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    return seen


def logits(path: Path, images: Tensor, **options: Any) -> Tensor:
    spec = foreign_segmenter_spec(
        "s", load_foreign_segmenter(path), ORIGIN, size=images.shape[-1], **options
    )
    return torch.from_numpy(spec.run_torch({"image": images.numpy()})["logits"]).double()


def saved(path: Path, state: object, *, modern: bool = True) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=modern)
    return path


def zeros(build: Callable[[], State]) -> State:
    """The names and shapes of a state dict, without its memory."""
    return OrderedDict(
        (n, torch.zeros((), dtype=t.dtype).expand(t.shape)) for n, t in build().items()
    )


def vainf_wrapped(state: State) -> dict[str, object]:
    """As the project's trainer saves it, optimiser and schedule included."""
    momentum = {0: {"momentum_buffer": torch.zeros(4)}, 1: {"momentum_buffer": None}}
    group = {"lr": 0.01, "momentum": 0.9, "params": [0, 1], "nesterov": False}
    return {
        "cur_itrs": 30000,
        "model_state": state,
        "optimizer_state": {"state": momentum, "param_groups": [group]},
        "scheduler_state": {"base_lrs": [0.01, 0.1], "last_epoch": 30000, "power": 0.9},
        "best_score": np.float64(0.71),
    }


# milesial's U-Net


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("bilinear", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_unet_computes_what_its_tensors_say(
    tmp_path: Path, bilinear: bool, bias: bool, modern: bool
) -> None:
    state = files.unet(classes=3, width=4, bilinear=bilinear, bias=bias)
    kept: dict[str, object] = {**state, "mask_values": [[0, 0, 0], [255, 0, 0], [255, 255, 255]]}
    path = saved(tmp_path / "checkpoint_epoch5.pth", OrderedDict(kept), modern=modern)
    images = pictures()
    wanted = files.unet_logits(state, (images.double() + 1) / 2)  # no more than [0, 1]
    torch.testing.assert_close(logits(path, images), wanted, atol=1e-5, rtol=1e-5)


def test_a_single_channel_becomes_background_and_foreground(tmp_path: Path) -> None:
    state = files.unet(classes=1, width=4, bilinear=True, bias=False)
    images = pictures()
    state["outc.conv.bias"] -= files.unet_logits(state, (images.double() + 1) / 2).median().float()
    path = saved(tmp_path / "u.pth", state)
    spec = foreign_segmenter_spec("s", load_foreign_segmenter(path), ORIGIN, size=64)
    assert spec.labels == ("background", "foreground")
    single = files.unet_logits(state, (images.double() + 1) / 2)
    both = logits(path, images)
    assert both.shape == (2, 2, 64, 64)
    assert 0.4 < float((single > 0).double().mean()) < 0.6
    certain = single[:, 0].abs() > 1e-5
    assert torch.equal(both.argmax(dim=1)[certain], (single[:, 0] > 0).long()[certain])


# BiSeNet


def test_bisenet_computes_what_its_tensors_say(tmp_path: Path) -> None:
    state = files.bisenet()
    path = saved(tmp_path / "79999_iter.pth", state, modern=False)
    images = pictures()
    wanted = files.bisenet_logits(state, normalised(images))
    torch.testing.assert_close(logits(path, images), wanted, atol=1e-5, rtol=1e-5)
    loaded = load_foreign_segmenter(path)
    assert loaded.names == CELEBA_MASK
    assert loaded.names[17] == "hair"


def test_counters_that_early_files_lack_are_not_missed(tmp_path: Path) -> None:
    state = files.bisenet(7)
    early = OrderedDict((n, t) for n, t in state.items() if not n.endswith("batches_tracked"))
    assert len(early) < len(state)
    loaded = load_foreign_segmenter(saved(tmp_path / "b.pth", early))
    assert (loaded.channels, loaded.names) == (7, ())


# DeepLab of VainF


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("separable", [True, False])
def test_deeplab_on_mobilenet_computes_what_its_tensors_say(
    tmp_path: Path, output_stride: int, separable: bool
) -> None:
    state = files.vainf_mobilenet(separable=separable)
    path = tmp_path / f"best_deeplabv3plus_mobilenet_voc_os{output_stride}.pth"
    saved(path, vainf_wrapped(state))
    images = pictures()
    wanted = files.vainf_mobilenet_logits(state, normalised(images), output_stride)
    torch.testing.assert_close(logits(path, images), wanted, atol=1e-5, rtol=1e-5)
    loaded = load_foreign_segmenter(path)
    assert loaded.names == VOC
    assert str(output_stride) in loaded.kind


@pytest.mark.parametrize("plus", [True, False])
@pytest.mark.parametrize(("depth", "third"), [(50, 6), (101, 23)])
def test_deeplab_on_resnets_loads_strictly(depth: int, third: int, plus: bool) -> None:
    def build() -> State:
        with torch.device("meta"):
            layout = files.Layout()
            files.bottleneck_resnet(layout, "backbone.", (3, 4, third, 3))
            files.vainf_head(layout, 256, 2048, 19, plus=plus, separable=False)
        return layout.state

    loaded = vainf_deeplab.load(StateDict(Path("os8.pth"), dict(zeros(build)), {}))
    assert loaded.kind == f"DeepLabv3{'+' if plus else ''} on resnet{depth} at output stride 8"
    assert (loaded.channels, loaded.names) == (19, ())
    backbone = loaded.network.get_submodule("backbone")
    dilations = {m.dilation[0] for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)}
    assert dilations == {1, 2, 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("text", "rot13"), "used for something else than bytes"),
        (("text",), "used for something else than bytes"),
        (("\u20ac", "latin1"), "characters beyond 255"),
    ],
)
def test_bytes_come_from_latin1_only(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    """How pickle wrote bytes before protocol 3, which a numpy number (best_score) needs."""

    class Encoded:
        def __reduce__(self) -> tuple[Any, ...]:
            return codecs.encode, arguments

    state = files.unet(classes=2, width=4, bilinear=True, bias=True)
    path = saved(tmp_path / "net.pth", {"model_state": state, "best_score": Encoded()})
    with pytest.raises(CheckpointError, match=message):
        load_foreign_segmenter(path)


def test_the_output_stride_is_read_from_the_name() -> None:
    names = {"a_os8.pth": 8, "A-OS16.pth": 16, "a.pth": 16, "photos8.pth": 16, "os80.pth": 16}
    assert {name: vainf_deeplab.output_stride(Path(name)) for name in names} == names


# torchvision


def test_torchvisions_deeplab_is_torchvisions(tmp_path: Path) -> None:
    state = OrderedDict((n, t.half()) for n, t in files.torchvision_deeplab().items())
    path = saved(tmp_path / "deeplabv3_resnet50_coco.pth", state)
    with torch.device("meta"):
        network = segmentation.deeplabv3_resnet50(
            weights=None, weights_backbone=None, aux_loss=True
        )
    network.load_state_dict({n: t.float() for n, t in state.items()}, strict=True, assign=True)
    images = pictures(1)
    with torch.inference_mode():
        wanted = network.eval()(normalised(images).float())["out"].double()
    torch.testing.assert_close(logits(path, images), wanted, atol=1e-4, rtol=1e-4)
    assert load_foreign_segmenter(path).names == VOC


def test_torchvisions_deeper_one_is_told_apart() -> None:
    def build() -> State:
        with torch.device("meta"):
            return files.torchvision_deeplab(4, (3, 4, 23, 3), aux=False)

    loaded = torchvision_deeplab.load(StateDict(Path("x.pth"), dict(zeros(build)), {}))
    assert (loaded.kind, loaded.channels, loaded.names) == ("DeepLabv3 on resnet101", 4, ())


# segmentation_models_pytorch

UNET: dict[str, Any] = {
    "encoder_name": "tu-mobilenetv3_small_100",
    "encoder_weights": None,
    "decoder_channels": [16, 16, 8, 8, 8],
    "classes": 3,
}


def smp_unet(**changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    network: torch.nn.Module = smp.Unet(**(UNET | changes))
    return network.eval()


def test_a_folder_of_save_pretrained_is_the_network(tmp_path: Path) -> None:
    network: Any = smp_unet(activation="softmax2d", aux_params={"classes": 2})
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_model_class"] == "Unet"
    config["encoder_weights"] = "imagenet"  # as it is with most; nothing may be fetched
    (tmp_path / "config.json").write_text(json.dumps(config))
    images = pictures()
    with torch.inference_mode():
        wanted, _ = network(normalised(images).float())
    for path in (tmp_path, tmp_path / "model.safetensors"):
        got = logits(path, images).softmax(dim=1)
        torch.testing.assert_close(got, wanted.double(), atol=1e-5, rtol=1e-5)
    assert (tmp_path / "README.md").exists()  # the folder is as the library writes it


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_state_dict_needs_only_a_small_description(tmp_path: Path, prefix: str) -> None:
    network = smp_unet()
    state = OrderedDict((prefix + n, t) for n, t in network.state_dict().items())
    path = saved(tmp_path / "mine.pth", {"epoch": 3, "state_dict": state})
    arguments = {n: v for n, v in UNET.items() if n != "encoder_weights"}
    extras = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "class_names": ["a", "b", "c"]}
    (tmp_path / "mine.json").write_text(json.dumps({"architecture": "Unet", **arguments, **extras}))
    images = pictures()
    with torch.inference_mode():
        wanted = network(images).double()  # this mean and std give back [-1, 1]
    torch.testing.assert_close(logits(path, images), wanted, atol=1e-5, rtol=1e-5)
    assert load_foreign_segmenter(path).names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "Onet"}, r"mine\.json: architecture 'Onet'; give one of .*Unet"),
        ({"encoder_name": "tu-hf-hub:someone/net"}, "encoder_name 'tu-hf-hub:someone/net'"),
        ({"encoder_name": "resnet1"}, "Unet cannot be built"),
        ({"classes": 0}, "classes is 0; give 1 to 256"),
        ({"classes": 4}, "size mismatch for segmentation_head"),
        ({"in_channels": 1}, "in_channels is 1; RGB has three"),
        ({"std": [1, 0, 1]}, r"std \[1.0, 0.0, 1.0\]"),
        ({"mean": "imagenet"}, "mean is 'imagenet'; give three numbers"),
        ({"class_names": 3}, "class_names is no list"),
    ],
)
def test_descriptions_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = saved(tmp_path / "mine.pth", smp_unet().state_dict())
    (tmp_path / "mine.json").write_text(json.dumps({"architecture": "Unet", **UNET, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_foreign_segmenter(path)


def test_what_lacks_its_description_says_how_to_write_one(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", smp_unet().state_dict())
    with pytest.raises(CheckpointError, match=r'mine\.json: no such file.*"architecture": "Unet"'):
        load_foreign_segmenter(path)
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load_foreign_segmenter(tmp_path)


# Of every format


FORMATS: dict[str, tuple[Callable[[], State], str]] = {
    "unet": (
        lambda: files.unet(classes=2, width=4, bilinear=False, bias=True),
        "inc.double_conv.1",
    ),
    "bisenet": (files.bisenet, "cp.arm16.bn_atten"),
    "vainf": (files.vainf_mobilenet, "classifier.aspp.convs.2.1"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, kind: str) -> None:
    build, norm = FORMATS[kind]
    whole: dict[str, Any] = dict(build())
    changes: dict[str, tuple[dict[str, Any], str]] = {
        "missing": ({n: t for n, t in whole.items() if n != f"{norm}.bias"}, f"{norm}.bias"),
        "left over": ({**whole, "extra.weight": torch.zeros(1)}, "extra.weight"),
        "of another shape": ({**whole, f"{norm}.bias": torch.zeros(99)}, "size mismatch"),
        "not finite": (
            {**whole, f"{norm}.bias": torch.full_like(whole[f"{norm}.bias"], torch.nan)},
            rf"{norm}.bias holds numbers that are not finite",
        ),
        "no tensor": ({**whole, "classes": 3}, "classes: no tensor"),
    }
    for state, message in changes.values():
        path = saved(tmp_path / "net.pth", OrderedDict(state))
        with pytest.raises(CheckpointError, match=rf"net\.pth: (.|\n)*{message}"):
            load_foreign_segmenter(path)


def test_networks_that_are_not_known_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.pth", {"head.weight": torch.zeros(1), "stem.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"no segmenter that is known .*head\.weight, stem"):
        load_foreign_segmenter(tmp_path / "a.pth")
    saved(tmp_path / "b.pth", {"epoch": 3})
    with pytest.raises(CheckpointError, match=r"holds no state dict.*found \['epoch'\]"):
        load_foreign_segmenter(tmp_path / "b.pth")
    grey = files.unet(classes=2, width=4, bilinear=True, bias=True, channels=1)
    with pytest.raises(CheckpointError, match="takes 1 channels; RGB has three"):
        load_foreign_segmenter(saved(tmp_path / "c.pth", grey))
    hr = {"classifier.aspp.convs.0.0.weight": torch.zeros(1), "backbone.stage4": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="the backbone is none of resnet50"):
        load_foreign_segmenter(saved(tmp_path / "d.pth", hr))
    light = {"classifier.0.convs.0.0.weight": torch.zeros(1), "backbone.0.0.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="on no ResNet with bottlenecks"):
        load_foreign_segmenter(saved(tmp_path / "e.pth", light))


def test_names_and_sizes_must_fit(tmp_path: Path) -> None:
    state = files.unet(classes=3, width=4, bilinear=True, bias=True)
    loaded = load_foreign_segmenter(saved(tmp_path / "u.pth", state))
    spec = foreign_segmenter_spec("s", loaded, ORIGIN, size=48)
    assert spec.labels == ("0", "1", "2")
    named = foreign_segmenter_spec("s", loaded, ORIGIN, size=48, class_names=("a", "b", "c"))
    assert named.labels == ("a", "b", "c")
    for names in (("a", "b"), ("a", "b", "b")):
        with pytest.raises(CheckpointError, match="the segmenter has 3 classes, so give 3 names"):
            foreign_segmenter_spec("s", loaded, ORIGIN, size=48, class_names=names)
    for size in (40, 0, 2048):
        with pytest.raises(CheckpointError, match=f"{size} px; .*16 to 1024 px in multiples of 16"):
            foreign_segmenter_spec("s", loaded, ORIGIN, size=size)
    with pytest.raises(CheckpointError, match=r"logits of .* at 48 px; expected \[1, 2, 48, 48\]"):
        foreign_segmenter_spec("s", replace(loaded, channels=2), ORIGIN, size=48)


def test_a_bundle_takes_it_with_its_names_and_size(tmp_path: Path) -> None:
    native.save_weights(tmp_path / "g.safetensors", random_generator(), CONFIG)
    names = tmp_path / "names.txt"
    names.write_text("sky\nsea\n\nland\n")
    state = files.unet(classes=3, width=4, bilinear=True, bias=True)
    path = saved(tmp_path / "u.pth", state)
    given = OwnFiles(tmp_path / "g.safetensors", segmenter=path, segmenter_classes=names)
    own = load_own(replace(given, segmenter_size=32), "pets", ORIGIN)
    spec = own.specs[-1]
    assert (own.segmenter, spec.name, spec.labels) == (
        "pets-segmenter",
        "pets-segmenter",
        ("sky", "sea", "land"),
    )
    assert spec.inputs[0].shape == (-1, 3, 32, 32)
    assert load_own(given, "pets", ORIGIN).specs[-1].inputs[0].shape == (-1, 3, 256, 256)
    with pytest.raises(CheckpointError, match=r"--segmenter .*u\.pth: .*: 40 px"):
        load_own(replace(given, segmenter_size=40), "pets", ORIGIN)
    with pytest.raises(CheckpointError, match="give --segmenter FILE with them"):
        load_own(replace(given, segmenter=None), "pets", ORIGIN)
    with pytest.raises(CheckpointError, match=r"--segmenter-classes .*: not a readable text file"):
        load_own(replace(given, segmenter_classes=tmp_path / "none"), "pets", ORIGIN)
    ours = SegmenterConfig("deeplabv3plus", "tu-mobilenetv3_small_100", ("a", "b"), 64, (32,))
    native.save_weights(tmp_path / "s.safetensors", build_segmenter(ours), ours)
    with pytest.raises(CheckpointError, match="the JSON beside this one has both"):
        load_own(replace(given, segmenter=tmp_path / "s.safetensors"), "pets", ORIGIN)


def test_the_graph_is_verified_at_two_sizes_and_three_batches(tmp_path: Path) -> None:
    state = files.unet(classes=3, width=4, bilinear=True, bias=True)
    loaded = load_foreign_segmenter(saved(tmp_path / "u.pth", state))
    (tmp_path / "cards").mkdir()
    entry = export_network(foreign_segmenter_spec("seg", loaded, ORIGIN, size=64), tmp_path)
    assert entry.role == bundle_pb2.ROLE_SEGMENTER
    assert list(entry.outputs[0].shape) == [-1, 3, 64, 64]
    seen = {(v.size, v.batch_size) for v in entry.verifications if v.reference == "torch float32"}
    assert seen == {(size, batch) for size in (0, 32) for batch in (1, 3, 8)}
    assert {v.reference for v in entry.verifications} == {"torch float32", "torch float64"}
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["seg.onnx"]
