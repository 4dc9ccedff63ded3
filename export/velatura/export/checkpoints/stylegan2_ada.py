"""StyleGAN2-ADA-PyTorch snapshots (`.pkl`) → our generator, without the code that they carry.

A snapshot is a dictionary of the networks G, D and G_ema; of each module the attributes are kept
(`_parameters`, `_buffers`, `_modules` and what its constructor set). Two things differ from ours:
the up-sampling layers' kernels are stored for a true convolution, so they are mirrored here; and
demodulation adds its 1e-8 before the weights' constant gain, which moves results by less than
float32 can hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from velatura.export.checkpoints.assembly import assemble, channels_of, filter_taps
from velatura.export.checkpoints.inert import Record, StoredTensor
from velatura.export.checkpoints.pickle_machine import Limits
from velatura.export.checkpoints.safe_pickle import load_pickle
from velatura.export.errors import CheckpointError
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig

_MAPPING_RATE = 0.01  # learning rate of the mapping network relative to the others'


def load_generator(path: Path, network: str = "G_ema", limits: Limits | None = None) -> Generator:
    """The averaged generator, or with "G" the one as trained, in eval mode.

    Raises RefusedPickleError where the pickle holds more than data, CheckpointError otherwise; both
    name the file and the module, attribute or tensor that does not fit.
    """
    snapshot = load_pickle(path, limits)
    if not isinstance(snapshot, dict) or not isinstance(snapshot.get(network), Record):
        found = (
            [k for k, v in snapshot.items() if isinstance(v, Record)]
            if isinstance(snapshot, dict)
            else []
        )
        raise CheckpointError(
            f"{path}: holds no network {network!r}; a snapshot of StyleGAN2-ADA-PyTorch is a "
            f"dictionary of networks, found {found or type(snapshot).__name__}"
        )
    try:
        return _convert(snapshot[network])
    except CheckpointError as error:
        raise type(error)(f"{path}: {network}: {error}") from error


def _convert(root: Record) -> Generator:
    modules = dict(_walk(root, ""))
    for name in ("mapping", "synthesis"):
        if name not in modules:
            raise CheckpointError(
                f"has no module {name}; {root.class_name} is no StyleGAN2 network"
            )
    stored = {
        f"{module}.{name}".lstrip("."): tensor
        for module, record in modules.items()
        for name, tensor in _tensors(record)
    }
    filters = {n: stored.pop(n).tensor() for n in list(stored) if n.endswith("resample_filter")}
    config = _configuration(modules, stored, filters)
    state = {
        name: tensor.tensor().flip((2, 3)) if name.endswith(".conv0.weight") else tensor.tensor()
        for name, tensor in stored.items()
    }
    _fill_noise(config, state)
    _rescale_mapping(modules, state)
    return assemble(config, state)


def _walk(record: Record, name: str) -> Iterator[tuple[str, Record]]:
    """Every module by its dotted name; the file's depth is limited."""
    yield name, record
    children = record.fields.get("_modules")
    for child, module in children.items() if isinstance(children, dict) else ():
        if isinstance(module, Record):
            yield from _walk(module, f"{name}.{child}".lstrip("."))


def _tensors(record: Record) -> Iterator[tuple[str, StoredTensor]]:
    """A module's own parameters and buffers."""
    for kind in ("_parameters", "_buffers"):
        group = record.fields.get(kind)
        for name, tensor in group.items() if isinstance(group, dict) else ():
            if isinstance(tensor, StoredTensor):
                yield name, tensor


def _configuration(
    modules: Mapping[str, Record], stored: Mapping[str, StoredTensor], filters: Mapping[str, Tensor]
) -> GeneratorConfig:
    blocks = {
        int(name.removeprefix("synthesis.b")): record
        for name, record in modules.items()
        if name.startswith("synthesis.b") and name.removeprefix("synthesis.b").isdecimal()
    }
    channels = channels_of({r: _shape(stored, f"synthesis.b{r}.conv1.weight", 4) for r in blocks})
    _require_plain(modules, blocks)
    depth = sum(name.startswith("mapping.fc") for name in modules)
    w_dim, _ = _shape(stored, f"mapping.fc{depth - 1}.weight", 2)
    hidden, entry = _shape(stored, "mapping.fc0.weight", 2)
    classes = 0
    if "mapping.embed" in modules:
        embedded, classes = _shape(stored, "mapping.embed.weight", 2)
        if embedded != w_dim:
            raise CheckpointError(
                f"mapping.embed gives {embedded} features; only w_dim, {w_dim}, is supported"
            )
        entry -= embedded
    taps = filter_taps(filters, gain=1) if filters else (1, 3, 3, 1)
    return GeneratorConfig(
        resolution=max(blocks),
        z_dim=entry,
        w_dim=w_dim,
        mapping_layers=depth,
        mapping_width=hidden if depth > 1 and hidden != w_dim else 0,
        channels=channels,
        resample_filter=taps,
        rgb_filter=taps,
        classes=classes,
        conv_clamp=_clamp(modules),
        fp16_resolutions=tuple(
            r for r, block in sorted(blocks.items()) if block.fields.get("use_fp16") is True
        ),
    )


def _shape(stored: Mapping[str, StoredTensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in stored or len(stored[name].shape) != axes:
        raise CheckpointError(f"has no tensor {name} of {axes} axes; is it a StyleGAN2 generator?")
    return stored[name].shape


def _require_plain(modules: Mapping[str, Record], blocks: Mapping[int, Record]) -> None:
    """Options of the official networks that change what they compute, and that ours lacks."""
    for resolution, block in blocks.items():
        architecture = block.fields.get("architecture", "skip")
        if architecture != "skip":
            raise CheckpointError(
                f"synthesis.b{resolution} has architecture {architecture!r}; only 'skip' is "
                "supported"
            )
    for name, record in modules.items():
        own = name.rpartition(".")[2]
        wanted = {"activation": "lrelu" if own.startswith(("fc", "conv")) else "linear"}
        if own.startswith("conv"):
            wanted["up"] = "2" if own == "conv0" else "1"
        for attribute, expected in wanted.items():
            value = record.fields.get(attribute, expected)
            if str(value) != expected:
                raise CheckpointError(
                    f"{name} has {attribute} {value!r}; only {expected!r} is supported"
                )
        gain = record.fields.get("act_gain", math.sqrt(2))
        if not isinstance(gain, (int, float)) or not math.isclose(gain, math.sqrt(2), rel_tol=1e-5):
            raise CheckpointError(f"{name} has act_gain {gain}; only √2 is supported")


def _clamp(modules: Mapping[str, Record]) -> float:
    """The one limit of all layers; 0 stands for none."""
    found = {
        record.fields["conv_clamp"] for record in modules.values() if "conv_clamp" in record.fields
    }
    if len(found) > 1:
        raise CheckpointError(f"layers have different conv_clamp: {sorted(map(str, found))}")
    value = found.pop() if found else None
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise CheckpointError(f"conv_clamp is {value!r}; a positive number is expected")
    return float(value)


def _fill_noise(config: GeneratorConfig, state: dict[str, Tensor]) -> None:
    """Networks trained with use_noise=False keep neither noise nor its strength: both are zero."""
    if any(name.endswith(("noise_const", "noise_strength")) for name in state):
        return
    for resolution in config.channels:
        for layer in ("conv1",) if resolution == 4 else ("conv0", "conv1"):
            prefix = f"synthesis.b{resolution}.{layer}"
            state[f"{prefix}.noise_const"] = torch.zeros(resolution, resolution)
            state[f"{prefix}.noise_strength"] = torch.zeros([])


def _rescale_mapping(modules: Mapping[str, Record], state: dict[str, Tensor]) -> None:
    """Ours has a fixed learning-rate multiplier; another one is folded into the weights."""
    for name, record in modules.items():
        rate = record.fields.get("bias_gain", _MAPPING_RATE)
        if not name.startswith("mapping.fc") or not isinstance(rate, (int, float)):
            continue
        for tensor in (f"{name}.weight", f"{name}.bias"):
            if rate != _MAPPING_RATE and tensor in state:
                state[tensor] = state[tensor] * (rate / _MAPPING_RATE)
