"""Specifications of feature extractors: VGG and ResNet cut down to their maps."""

from __future__ import annotations

from pathlib import Path

from velatura.export.checkpoints import resnet, vgg
from velatura.export.checkpoints.plain_tensors import read_tensors
from velatura.export.errors import CheckpointError
from velatura.export.generator_networks import Origin
from velatura.export.networks.features import ResNetFeatures, VggFeatures
from velatura.export.specification import NetworkSpec, Port
from velatura.v1 import bundle_pb2

_LEAST = 32  # px; five halvings must leave something
_SIZES = ((64, 64), (96, 131))


def read_features(path: Path) -> VggFeatures | ResNetFeatures:
    """torchvision's VGG or ResNet by what the file's tensors are called.

    Raises CheckpointError naming the file and what is missing, left over or does not fit.
    """
    state = read_tensors(path)
    try:
        if vgg.is_vgg(state):
            return vgg.vgg_of(state)
        if resnet.is_resnet(state):
            return resnet.resnet_of(state)
        raise CheckpointError("is neither a VGG nor a ResNet of torchvision")
    except CheckpointError as error:
        raise type(error)(f"--features {path}: {error}") from error


def features_spec(name: str, network: VggFeatures | ResNetFeatures, origin: Origin) -> NetworkSpec:
    """Picture → feature maps by layer, served as raw tensors."""
    kind = "VGG" if isinstance(network, VggFeatures) else "ResNet"
    paper = "Simonyan and Zisserman 2014, arXiv:1409.1556"
    if isinstance(network, ResNetFeatures):
        paper = "He et al. 2015, arXiv:1512.03385"
    maps = network.outputs
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_UNSPECIFIED,
        module=network,
        inputs=(Port("image", (-1, 3, -1, -1), 0, 1, "NCHW", least=_LEAST),),
        outputs=tuple(
            Port(layer, (-1, channels, -1, -1), layout="NCHW") for layer, channels in maps.items()
        ),
        background=origin.background(
            f"{kind} features: a picture to its maps at {', '.join(maps)}. ImageNet's "
            "normalisation is inside.",
            "Comparing pictures by content and style; raw tensors only.",
            (paper,),
        ),
        tolerance=2e-4,
        sizes=_SIZES,
        counted_at=(256, 256),
    )
