"""Writes snapshots in the layout of StyleGAN2-ADA-PyTorch: the same attributes, names and opcodes.

The classes below hold parameters only. While a file is written they pose as the official ones, by
stand-ins for `torch_utils.persistence` and `dnnlib.util` in sys.modules, so that pickle itself
chooses the opcodes.
"""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MODULE_SOURCE = "raise SystemExit('the source inside the pickle was executed')\n"


class EasyDict(dict[str, Any]):
    """Poses as dnnlib.util.EasyDict."""


EasyDict.__module__ = "dnnlib.util"


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> object:
    raise AssertionError("the reconstructor was called")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent(nn.Module):
    """A module that pickles as the official decorator makes it."""

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": MODULE_SOURCE,
            "class_name": type(self).__name__,
            "state": dict(self.__dict__),
        }
        return _reconstruct_persistent_obj, (meta,), None


class FullyConnectedLayer(Persistent):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: str = "linear",
        rate: float = 1.0,
        init: float = 0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.randn(outputs) * 0.1 / rate + init)
        self.weight_gain = rate / np.sqrt(inputs)  # a numpy scalar, as in the official files
        self.bias_gain = rate


class MappingNetwork(Persistent):
    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_ws: int, num_layers: int) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta = num_layers, 0.995
        if c_dim:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        for i in range(num_layers):
            inputs = (z_dim + (w_dim if c_dim else 0)) if i == 0 else w_dim
            setattr(self, f"fc{i}", FullyConnectedLayer(inputs, w_dim, "lrelu", 0.01))
        self.register_buffer("w_avg", torch.randn(w_dim))


def resample_filter() -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = taps.ger(taps)
    return kernel / kernel.sum()


class SynthesisLayer(Persistent):
    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, up: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.use_noise, self.activation = resolution, up, True, "lrelu"
        self.conv_clamp, self.padding, self.act_gain = clamp, 1, np.sqrt(2)
        self.register_buffer("resample_filter", resample_filter())
        self.affine = FullyConnectedLayer(w_dim, inputs, init=1)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.noise_strength = nn.Parameter(torch.randn([]) * 0.3)
        self.bias = nn.Parameter(torch.randn(outputs) * 0.1)


class ToRGBLayer(Persistent):
    def __init__(self, inputs: int, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.conv_clamp = clamp
        self.affine = FullyConnectedLayer(w_dim, inputs, init=1)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.randn(3) * 0.1)
        self.weight_gain = 1 / np.sqrt(inputs)


class SynthesisBlock(Persistent):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        clamp: float | None,
        fp16: bool,
    ) -> None:
        super().__init__()
        self.in_channels, self.resolution, self.architecture = inputs, resolution, "skip"
        self.use_fp16, self.channels_last = fp16, False
        self.register_buffer("resample_filter", resample_filter())
        if inputs == 0:
            self.const = nn.Parameter(torch.randn(outputs, 4, 4))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, 2, clamp)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, 1, clamp)
        self.torgb = ToRGBLayer(outputs, w_dim, clamp)


class SynthesisNetwork(Persistent):
    def __init__(
        self,
        w_dim: int,
        resolution: int,
        channels: int,
        widest: int,
        clamp: float | None,
        num_fp16_res: int,
    ) -> None:
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, resolution, 3
        log2 = int(math.log2(resolution))
        self.block_resolutions = [2**i for i in range(2, log2 + 1)]
        widths = {r: min(channels * resolution // r, widest) for r in self.block_resolutions}
        for r in self.block_resolutions:
            fp16 = r >= 2 ** (log2 + 1 - num_fp16_res)
            block = SynthesisBlock(widths.get(r // 2, 0), widths[r], w_dim, r, clamp, fp16)
            setattr(self, f"b{r}", block)
        self.num_ws = 2 * log2 - 2


class Generator(Persistent):
    def __init__(
        self,
        *,
        z_dim: int = 6,
        c_dim: int = 0,
        w_dim: int = 8,
        resolution: int = 32,
        channels: int = 2,
        widest: int = 0,
        num_layers: int = 2,
        clamp: float | None = None,
        num_fp16_res: int = 0,
    ) -> None:
        super().__init__()
        self._init_args = ()
        self._init_kwargs = EasyDict(z_dim=z_dim, mapping_kwargs=EasyDict(num_layers=num_layers))
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = resolution, 3
        self.synthesis = SynthesisNetwork(
            w_dim, resolution, channels, widest or channels * 4, clamp, num_fp16_res
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, num_layers)


def paper256(num_layers: int = 8, c_dim: int = 0) -> Generator:
    """As the official configuration for 256 px: channel_base 16384, channel_max 512, fp16 in the
    four highest resolutions with a clamp of 256."""
    return build(
        z_dim=512,
        c_dim=c_dim,
        w_dim=512,
        resolution=256,
        channels=64,
        widest=512,
        num_layers=num_layers,
        clamp=256,
        num_fp16_res=4,
    )


def build(seed: int = 0, **options: Any) -> Generator:
    torch.manual_seed(seed)
    return Generator(**options).eval().requires_grad_(False)


@contextmanager
def official_modules() -> Iterator[None]:
    """The official packages' names, for pickle to find its classes by."""
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    before = {name: sys.modules.get(name) for name in names}
    modules = {name: ModuleType(name) for name in names}
    vars(modules["torch_utils.persistence"])[_reconstruct_persistent_obj.__name__] = (
        _reconstruct_persistent_obj
    )
    vars(modules["dnnlib.util"])["EasyDict"] = EasyDict
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def write(path: Path, protocol: int = 4, **networks: object) -> Path:
    """A training snapshot; the last one written by the official code has these entries."""
    snapshot = {
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "xflip": True},
        "D": None,
        "augment_pipe": None,
        **networks,
    }
    with official_modules(), path.open("wb") as stream:
        pickle.dump(snapshot, stream, protocol)
    return path
