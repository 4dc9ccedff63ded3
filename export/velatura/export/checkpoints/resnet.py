"""torchvision's ResNets, wide ones and ResNeXts (`layer1.0.conv1.…`) → feature maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from velatura.export.checkpoints.plain_tensors import fill
from velatura.export.errors import CheckpointError
from velatura.export.networks.features import ResNetFeatures

_BLOCKS = 100  # of a stage; the largest published has 36


def is_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are this format's."""
    return "layer1.0.conv1.weight" in state and "bn1.running_mean" in state


def resnet_of(state: Mapping[str, Tensor]) -> ResNetFeatures:
    """In eval mode, without the classifier.

    Raises CheckpointError naming the tensor that is missing, left over or does not fit.
    """
    counts = [_count(state, f"layer{stage}") for stage in (1, 2, 3, 4)]
    first, second = (_kernel(state, f"layer1.0.conv{i}.weight") for i in (1, 2))
    deep = "layer1.0.conv3.weight" in state
    groups = second.shape[0] // second.shape[1]  # a grouped kernel has fewer inputs than outputs
    with torch.device("meta"):
        network = ResNet(
            Bottleneck if deep else BasicBlock,
            counts,
            groups=groups if deep else 1,
            width_per_group=first.shape[0] // groups if deep else 64,
        )
    network.fc = nn.Identity()  # the classifier is left out
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    fill(network, kept, "torchvision's ResNet")
    return ResNetFeatures(network).eval()


def _count(state: Mapping[str, Tensor], stage: str) -> int:
    count = 0
    while f"{stage}.{count}.conv1.weight" in state and count < _BLOCKS:
        count += 1
    if not count:
        raise CheckpointError(f"has no tensor {stage}.0.conv1.weight")
    return count


def _kernel(state: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = state.get(name)
    if tensor is None or tensor.ndim != 4 or 0 in tensor.shape:
        raise CheckpointError(f"has no convolution {name}")
    return tensor
