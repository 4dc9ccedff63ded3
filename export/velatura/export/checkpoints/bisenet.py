"""BiSeNet face parsing (`79999_iter.pth` and its like): a bare state dict of 19 classes."""

from __future__ import annotations

from velatura.export.checkpoints.loaded_segmenter import LoadedSegmenter
from velatura.export.checkpoints.state_dicts import StateDict, channels, load_strictly
from velatura.export.networks.bisenet import BiSeNet

# CelebAMask-HQ's, in the order of the face-parsing project.
CELEBA_MASK = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
_MARK = "cp.resnet.conv1.weight"
_LOGITS = "conv_out.conv_out.weight"


def matches(state: StateDict) -> bool:
    """Whether the names are those of this format."""
    return _MARK in state.tensors


def load(state: StateDict) -> LoadedSegmenter:
    """The network. Raises CheckpointError as `load_strictly`."""
    classes = channels(state, _LOGITS)
    network = load_strictly(lambda: BiSeNet(classes), state, "BiSeNet")
    del network.conv_out16, network.conv_out32  # checked like all the others, and never run
    return LoadedSegmenter(
        network=network,
        kind="BiSeNet on ResNet-18",
        channels=classes,
        stride=32,
        papers=("Yu et al. 2018, arXiv:1808.00897",),
        names=CELEBA_MASK if classes == len(CELEBA_MASK) else (),
    )
