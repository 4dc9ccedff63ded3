"""VGG and ResNet feature maps from torchvision's state dicts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from velatura.export.audit import audit
from velatura.export.bundle import write_bundle
from velatura.export.errors import CheckpointError
from velatura.export.feature_networks import features_spec, read_features
from velatura.export.own_bundle import origin_of

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
# VGG-19's plan at an eighth of its widths.
NARROW: list[str | int] = [w if isinstance(w, str) else w // 8 for w in vgg.cfgs["E"]]
# Numbers of the ReLUs in torchvision's vgg19().features.
RELUS = {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 20, "relu5_1": 29, "relu4_2": 22}
RELUS_BN = {"relu1_1": 2, "relu2_1": 9, "relu3_1": 16, "relu4_1": 29, "relu5_1": 42, "relu4_2": 32}


class Vgg(nn.Module):
    """torchvision's VGG with narrow layers; its classifier's names, but not its size."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.features = vgg.make_layers(NARROW, batch_norm=norm)
        self.classifier = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2))


def warmed(network: nn.Module) -> nn.Module:
    """With batch norm statistics that are not the initial ones."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


def saved(network: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "features.pth"
    torch.save(network.state_dict(), path)
    return path


def normalised(image: Tensor) -> Tensor:
    return (image.double() - MEAN) / DEVIATION


@pytest.mark.parametrize("norm", [False, True])
def test_vgg_gives_the_activations_by_name(norm: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = warmed(Vgg(norm=norm))
    network = read_features(saved(source, tmp_path))
    assert list(network.outputs.values()) == [8, 16, 32, 64, 64, 64]
    image = torch.rand(2, 3, 48, 70)
    x, kept = normalised(image), {}
    for place, layer in enumerate(source.double().features):  # type: ignore[arg-type]
        x = layer(x)
        kept[place] = x
    for (name, place), found in zip(
        (RELUS_BN if norm else RELUS).items(), network(image), strict=True
    ):
        assert name in network.outputs
        assert kept[place].std() > 0
        assert torch.allclose(found.double(), kept[place], atol=1e-5), name


@pytest.mark.parametrize(
    ("block", "options"),
    [
        (BasicBlock, {}),
        (Bottleneck, {"width_per_group": 8}),
        (Bottleneck, {"groups": 4, "width_per_group": 4}),
    ],
    ids=["basic", "bottleneck", "grouped"],
)
def test_resnet_gives_its_four_stages(block, options: dict[str, int], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    source = warmed(ResNet(block, [2, 1, 1, 1], num_classes=3, **options))
    network = read_features(saved(source, tmp_path))
    image = torch.rand(1, 3, 64, 40)
    source = source.double()
    x = source.maxpool(source.relu(source.bn1(source.conv1(normalised(image)))))
    for stage, (name, found) in enumerate(
        zip(network.outputs.items(), network(image), strict=True), 1
    ):
        x = getattr(source, f"layer{stage}")(x)
        assert name == (f"layer{stage}", x.shape[1])
        assert torch.allclose(found.double(), x, atol=1e-4)


def test_files_from_before_batches_were_counted(tmp_path: Path) -> None:
    """The first published ResNets have no num_batches_tracked."""
    torch.manual_seed(2)
    state = ResNet(BasicBlock, [1, 1, 1, 1]).state_dict()
    old = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    assert len(read_features(tmp_path / "old.pth")(torch.rand(1, 3, 32, 32))) == 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("features.5.bias"), r"features\.5\.bias"),
        (lambda s: s.pop("features.5.weight"), r"between features\.2 and features\.7"),
        (lambda s: s.update(other=torch.ones(1)), "other"),
    ],
)
def test_what_does_not_fit_is_named(damage, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    state = Vgg(norm=False).state_dict()
    damage(state)
    path = tmp_path / "vgg.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=rf"(?s)--features .*vgg\.pth: .*{message}"):
        read_features(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="neither a VGG nor a ResNet"):
        read_features(tmp_path / "x.pth")


def test_the_graph_takes_any_size(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = read_features(saved(Vgg(norm=False), tmp_path))
    spec = features_spec("vgg-features", network, origin_of("", ""))
    out = tmp_path / "bundle"
    (entry,) = write_bundle(out, name="features", specs=[spec], size_limit=None).models
    assert [output.name for output in entry.outputs] == list(RELUS)
    assert {tuple(o.shape)[2:] for o in entry.outputs} == {(-1, -1)}
    assert {(v.batch_size, v.size) for v in entry.verifications} == {
        (batch, size) for batch in (1, 3, 8) for size in (64, 131)
    }
    assert list(audit(out)) == [("vgg-features", "")]
