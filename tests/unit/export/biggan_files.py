"""Writes files in the layouts of BigGAN-PyTorch and pytorch-pretrained-BigGAN, and says in float64
what their networks make of them: by the formulas, on the tensors as stored."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

State = OrderedDict[str, Tensor]
CLASSES, EMBEDDING = 5, 6
# BigGAN-PyTorch at 32 px: ch = 4, so 16 channels everywhere; attention at 16 px.
WIDTH, CHUNK, BLOCKS, ATTENDED = 16, 4, 3, 1
# pytorch-pretrained-BigGAN: (doubles the size, inputs, outputs), attention before the third.
DEEP_WIDTH, DEEP_Z, ROWS, DEEP_EPS = 8, 6, 51, 1e-4
DEEP_LAYERS = [[False, 4, 4], [True, 4, 2], [False, 2, 2], [True, 2, 1]]
DEEP_ATTENTION = 2


def save(state: State, path: Path) -> Path:
    """As torch.save did in 2019, with the metadata that state_dict() brings along."""
    state._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def build(
    seed: int = 0, *, hierarchical: bool = True, shared: bool = True, spectral: bool = True
) -> State:
    """A generator's state dict, in the order in which its modules register."""
    torch.manual_seed(seed)
    state: State = OrderedDict()
    chunk = CHUNK if hierarchical else 0
    if shared:
        state["shared.weight"] = torch.randn(CLASSES, EMBEDDING)
    _layer(state, "linear", (WIDTH * 16, CHUNK), spectral)
    for i in range(BLOCKS):
        name = f"blocks.{i}.0"
        _layer(state, f"{name}.conv1", (WIDTH, WIDTH, 3, 3), spectral)
        _layer(state, f"{name}.conv2", (WIDTH, WIDTH, 3, 3), spectral)
        _layer(state, f"{name}.conv_sc", (WIDTH, WIDTH, 1, 1), spectral)
        for norm in ("bn1", "bn2"):
            state[f"{name}.{norm}.stored_mean"] = torch.randn(WIDTH) * 0.3
            state[f"{name}.{norm}.stored_var"] = torch.rand(WIDTH) + 0.5
            for part in ("gain", "bias"):
                if shared:
                    shape = (WIDTH, EMBEDDING + chunk)
                    _layer(state, f"{name}.{norm}.{part}", shape, spectral, bias=False)
                else:
                    state[f"{name}.{norm}.{part}.weight"] = torch.randn(CLASSES, WIDTH) * 0.3
        if i == ATTENDED:
            _attention(state, spectral)
    state["output_layer.0.gain"] = torch.rand(WIDTH) + 0.5
    state["output_layer.0.bias"] = torch.randn(WIDTH) * 0.1
    state["output_layer.0.stored_mean"] = torch.randn(WIDTH) * 0.3
    state["output_layer.0.stored_var"] = torch.rand(WIDTH) + 0.5
    _layer(state, "output_layer.2", (3, WIDTH, 3, 3), spectral)
    return state


def _attention(state: State, spectral: bool) -> None:
    name = f"blocks.{ATTENDED}.1"
    state[f"{name}.gamma"] = torch.tensor(0.7)
    for part, shape in (
        ("theta", (WIDTH // 8, WIDTH)),
        ("phi", (WIDTH // 8, WIDTH)),
        ("g", (WIDTH // 2, WIDTH)),
        ("o", (WIDTH, WIDTH // 2)),
    ):
        _layer(state, f"{name}.{part}", (*shape, 1, 1), spectral, bias=False)


def _layer(
    state: State, name: str, shape: tuple[int, ...], spectral: bool, *, bias: bool = True
) -> None:
    state[f"{name}.weight"] = torch.randn(shape) * 0.2
    if bias:
        state[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    if spectral:
        state[f"{name}.u0"] = torch.randn(1, shape[0])
        state[f"{name}.sv0"] = torch.ones(1)


def image_of(state: Mapping[str, Tensor], z: Tensor, one_hot: Tensor) -> Tensor:
    """BigGAN-PyTorch in eval mode, float64 [N, 3, 32, 32]."""
    s = {name: value.double() for name, value in state.items()}
    z, one_hot = z.double(), one_hot.double()

    def weight(name: str) -> Tensor:
        w = s[f"{name}.weight"]
        if f"{name}.u0" not in s:
            return w
        matrix = w.reshape(len(w), -1)
        v = s[f"{name}.u0"] @ matrix
        v = v / v.norm()
        u = v @ matrix.T
        u = u / u.norm()
        return w / (v @ matrix.T @ u.T).squeeze()

    def conv(x: Tensor, name: str) -> Tensor:
        w = weight(name)
        return F.conv2d(x, w, s.get(f"{name}.bias"), padding=w.shape[2] // 2)

    def norm(x: Tensor, name: str, y: Tensor) -> Tensor:
        if "shared.weight" in s:
            gain, bias = (y @ weight(f"{name}.{part}").T for part in ("gain", "bias"))
        else:
            gain, bias = (one_hot @ s[f"{name}.{part}.weight"] for part in ("gain", "bias"))
        mean, var = s[f"{name}.stored_mean"], s[f"{name}.stored_var"]
        plain = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return plain * (1 + gain[:, :, None, None]) + bias[:, :, None, None]

    chunks = z.split(CHUNK, dim=1)
    y = one_hot @ s["shared.weight"] if "shared.weight" in s else one_hot
    x = (chunks[0] @ weight("linear").T + s["linear.bias"]).reshape(-1, WIDTH, 4, 4)
    for i in range(BLOCKS):
        name = f"blocks.{i}.0"
        condition = torch.cat([y, chunks[i + 1]], 1) if len(chunks) > 1 else y
        h = F.interpolate(F.relu(norm(x, f"{name}.bn1", condition)), scale_factor=2)
        h = conv(F.relu(norm(conv(h, f"{name}.conv1"), f"{name}.bn2", condition)), f"{name}.conv2")
        x = h + conv(F.interpolate(x, scale_factor=2), f"{name}.conv_sc")
        if i == ATTENDED:
            names = [f"blocks.{i}.1.{part}" for part in ("theta", "phi", "g", "o")]
            x = x + s[f"blocks.{i}.1.gamma"] * _attended(x, *map(weight, names))
    mean, var, gain, bias = (
        s[f"output_layer.0.{part}"] for part in ("stored_mean", "stored_var", "gain", "bias")
    )
    x = F.batch_norm(x, mean, var, gain, bias, eps=1e-5)
    return torch.tanh(conv(F.relu(x), "output_layer.2"))


def _attended(x: Tensor, theta: Tensor, phi: Tensor, g: Tensor, o: Tensor) -> Tensor:
    """O(softmax(θᵀφ) G), written out for every place."""
    query = F.conv2d(x, theta).flatten(2)
    key, value = (F.max_pool2d(F.conv2d(x, w), 2).flatten(2) for w in (phi, g))
    shares = torch.einsum("ncq,nck->nqk", query, key).softmax(-1)
    mixed = torch.einsum("nqk,nck->ncq", shares, value)
    return F.conv2d(mixed.reshape(len(x), -1, *x.shape[2:]), o)


def build_deep(seed: int = 0) -> State:
    """pytorch-pretrained-BigGAN's state dict."""
    torch.manual_seed(seed)
    state: State = OrderedDict()
    condition, ch = 2 * DEEP_Z, DEEP_WIDTH
    state["embeddings.weight"] = torch.randn(DEEP_Z, CLASSES)
    _torch_layer(state, "generator.gen_z", (16 * DEEP_LAYERS[0][1] * ch, condition))
    place = 0
    for i, (_, inputs, outputs) in enumerate(DEEP_LAYERS):
        if i == DEEP_ATTENTION:
            _deep_attention(state, f"generator.layers.{place}", inputs * ch)
            place += 1
        _deep_block(state, f"generator.layers.{place}", inputs * ch, outputs * ch, condition)
        place += 1
    state["generator.bn.weight"] = torch.rand(ch) + 0.5
    state["generator.bn.bias"] = torch.randn(ch) * 0.1
    _rows(state, "generator.bn", ch)
    _torch_layer(state, "generator.conv_to_rgb", (ch, ch, 3, 3))
    return state


def _deep_block(state: State, name: str, inputs: int, outputs: int, condition: int) -> None:
    middle = inputs // 4
    widths = (inputs, middle, middle, middle, outputs)
    for i in range(4):
        _rows(state, f"{name}.bn_{i}", widths[i])
        for part in ("scale", "offset"):
            _torch_layer(state, f"{name}.bn_{i}.{part}", (widths[i], condition), bias=False)
        kernel = 3 if i in (1, 2) else 1
        _torch_layer(state, f"{name}.conv_{i}", (widths[i + 1], widths[i], kernel, kernel))


def _deep_attention(state: State, name: str, channels: int) -> None:
    state[f"{name}.gamma"] = torch.tensor([0.8])
    for part, shape in (
        ("theta", (channels // 8, channels)),
        ("phi", (channels // 8, channels)),
        ("g", (channels // 2, channels)),
        ("o_conv", (channels, channels // 2)),
    ):
        _torch_layer(state, f"{name}.snconv1x1_{part}", (*shape, 1, 1), bias=False)


def _rows(state: State, name: str, channels: int) -> None:
    state[f"{name}.running_means"] = torch.randn(ROWS, channels) * 0.3
    state[f"{name}.running_vars"] = torch.rand(ROWS, channels) + 0.5


def _torch_layer(state: State, name: str, shape: tuple[int, ...], *, bias: bool = True) -> None:
    """As torch.nn.utils.spectral_norm keeps it: u and v close to the first singular vectors."""
    if bias:
        state[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    weight = torch.randn(shape) * 0.3
    left, _, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    state[f"{name}.weight_orig"] = weight
    state[f"{name}.weight_u"] = F.normalize(left[:, 0] + 0.05 * torch.randn(shape[0]), dim=0)
    state[f"{name}.weight_v"] = F.normalize(right[0] + 0.05 * torch.randn(right.shape[1]), dim=0)


def save_deep(state: State, folder: Path) -> Path:
    """pytorch_model.bin and config.json, as the project's cache has them."""
    config = {
        "output_dim": 16,
        "z_dim": DEEP_Z,
        "class_embed_dim": DEEP_Z,
        "channel_width": DEEP_WIDTH,
        "num_classes": CLASSES,
        "layers": DEEP_LAYERS,
        "attention_layer_position": DEEP_ATTENTION,
        "eps": DEEP_EPS,
        "n_stats": ROWS,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return save(state, folder / "pytorch_model.bin")


def deep_image_of(state: Mapping[str, Tensor], z: Tensor, one_hot: Tensor, row: int) -> Tensor:
    """pytorch-pretrained-BigGAN in eval mode with the statistics of one row, float64."""
    s = {name: value.double() for name, value in state.items()}
    z, one_hot = z.double(), one_hot.double()

    def weight(name: str) -> Tensor:
        w = s[f"{name}.weight_orig"]
        sigma = s[f"{name}.weight_u"] @ w.reshape(len(w), -1) @ s[f"{name}.weight_v"]
        return w / sigma

    def conv(x: Tensor, name: str) -> Tensor:
        w = weight(name)
        return F.conv2d(x, w, s[f"{name}.bias"], padding=w.shape[2] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = s[f"{name}.running_means"][row], s[f"{name}.running_vars"][row]
        plain = (x - mean[:, None, None]) / (var[:, None, None] + DEEP_EPS).sqrt()
        scale, offset = (condition @ weight(f"{name}.{part}").T for part in ("scale", "offset"))
        return F.relu(plain * (1 + scale[:, :, None, None]) + offset[:, :, None, None])

    condition = torch.cat([z, one_hot @ s["embeddings.weight"].T], 1)
    x = condition @ weight("generator.gen_z").T + s["generator.gen_z.bias"]
    x = x.reshape(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    place = 0
    for i, (up, _, outputs) in enumerate(DEEP_LAYERS):
        if i == DEEP_ATTENTION:
            name = f"generator.layers.{place}"
            parts = [f"{name}.snconv1x1_{part}" for part in ("theta", "phi", "g", "o_conv")]
            x = x + s[f"{name}.gamma"] * _attended(x, *map(weight, parts))
            place += 1
        name = f"generator.layers.{place}"
        place += 1
        h = norm(conv(norm(x, f"{name}.bn_0"), f"{name}.conv_0"), f"{name}.bn_1")
        skip = x[:, : outputs * DEEP_WIDTH]
        if up:
            h, skip = (F.interpolate(t, scale_factor=2) for t in (h, skip))
        h = norm(conv(h, f"{name}.conv_1"), f"{name}.bn_2")
        h = norm(conv(h, f"{name}.conv_2"), f"{name}.bn_3")
        x = conv(h, f"{name}.conv_3") + skip
    name = "generator.bn"
    mean, var = s[f"{name}.running_means"][row], s[f"{name}.running_vars"][row]
    x = F.batch_norm(x, mean, var, s[f"{name}.weight"], s[f"{name}.bias"], eps=DEEP_EPS)
    return torch.tanh(conv(F.relu(x), "generator.conv_to_rgb")[:, :3])
