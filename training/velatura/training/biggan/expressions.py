"""Avatars for class-conditional training: the class is the mouth, everything else comes from z.

The view is closer than in the other avatar sets, so that the mouth has enough pixels at 64 px, and
the parts are those that leave the mouth free. Shapes are chosen by the greatest of a few dimensions
of z, colours run along continuous paths; so each z stands for one avatar, and a generator can be
started on pairs of z and image before it meets a discriminator.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from velatura.training.avatars.layers import LayerSet, render_layers
from velatura.training.avatars.parts import OPTIONS

CLASSES = ("neutral", "smile", "slight_smile", "sad", "open", "scream", "grimace", "tongue")

VIEW_BOX = "36 22 192 192"

# Attribute → (first dimension of z, options). The first option is favoured: it is the average face.
SHAPES: Mapping[str, tuple[int, tuple[str, ...]]] = MappingProxyType(
    {
        "hair": (
            0,
            (
                "short_round",
                "short_flat",
                "bald",
                "bob",
                "bun",
                "curly",
                "straight_strand",
                "medium",
                "fro",
            ),
        ),
        "clothing": (9, ("crew_neck", "hoodie", "blazer")),
        "accessory": (12, ("none", "glasses", "round_glasses", "sunglasses")),
        "eyes": (16, ("open", "closed", "happy", "surprised", "side")),
        "brows": (24, ("neutral", "raised", "angry", "flat")),
    }
)
_FAVOUR = MappingProxyType(
    {"hair": 0.2, "clothing": 0.2, "accessory": 1.2, "eyes": 0.6, "brows": 0.3}
)

# Colours along a path, by one dimension of z each; the options between which it runs, in order.
PATHS: Mapping[str, tuple[int, tuple[str, ...]]] = MappingProxyType(
    {
        "skin": (36, ("pale", "light", "brown", "dark_brown", "black")),
        "hair_color": (
            37,
            ("silver", "platinum", "blonde", "red", "auburn", "brown", "dark_brown", "black"),
        ),
    }
)
# Free colours, RGB by three dimensions of z each, and the ramp of the background.
CLOTHING_COLOR, BACKGROUND, SHADE = 48, 51, 54
Z_DIM = 60

_DARKEST = 40.0  # of 255: outlines must stay visible on any free colour


class ExpressionRenders:
    """Draws the avatar that a z and a class stand for."""

    def __init__(self, resolution: int = 64) -> None:
        self.resolution = resolution
        layers = render_layers(resolution, view_box=VIEW_BOX)
        self._shapes = {name: _pick(layers, name) for name in ("accessory", "eyes", "brows")}
        self._mouth = layers.mouth[_indices("mouth", CLASSES)]  # [C, 4, R, R]
        self._nose = layers.nose
        self._skin = layers.body[_indices("skin", PATHS["skin"][1])]  # [K, 4, R, R]
        hair = layers.hair[_indices("hair", SHAPES["hair"][1])]
        self._hair = hair[:, _indices("hair_color", PATHS["hair_color"][1])]  # [H, K, 4, R, R]
        # A part's samples are linear in its colour, so two renders give every other.
        clothing = layers.clothing[_indices("clothing", SHAPES["clothing"][1])]
        self._clothing = clothing[:, _indices("clothing_color", ("black", "white"))]

    def images(self, z: Tensor, classes: Tensor) -> Tensor:
        """z float32 [N, 60], classes int64 [N] of CLASSES → RGB float32 [N, 3, R, R] in [-1, 1]."""
        chosen = {name: leading(z, name) for name in SHAPES}
        canvas = self._background(z)
        for layer in (
            _along(self._skin, _position(z, "skin")),
            self._clothes(z, chosen["clothing"]),
            self._mouth[classes].float(),
            self._nose.float(),
            self._shapes["eyes"][chosen["eyes"]].float(),
            self._shapes["brows"][chosen["brows"]].float(),
            _along(self._hair, _position(z, "hair_color"), chosen["hair"]),
            self._shapes["accessory"][chosen["accessory"]].float(),
        ):  # [N, 4, R, R], premultiplied, 0 to 255
            canvas = layer[:, :3] + canvas * (1 - layer[:, 3:] / 255)
        images: Tensor = (canvas / 127.5 - 1).clamp(-1, 1)
        return images

    def _background(self, z: Tensor) -> Tensor:
        """A ramp from a free colour to a shade of it."""
        above = _free_color(z, BACKGROUND)[:, :, None, None]  # [N, 3, 1, 1]
        shade = 0.75 + 0.4 * torch.special.ndtr(z[:, SHADE, None, None, None])  # [N, 1, 1, 1]
        ramp = torch.linspace(0, 1, self.resolution).view(1, 1, -1, 1)
        canvas: Tensor = above * (1 + (shade - 1) * ramp)  # [N, 3, R, 1]
        return canvas.clamp(0, 255).expand(-1, -1, -1, self.resolution)

    def _clothes(self, z: Tensor, kinds: Tensor) -> Tensor:
        dark, white = (self._clothing[kinds, i].float() for i in range(2))  # [N, 4, R, R]
        black = torch.tensor(_rgb(OPTIONS["clothing_color"]["black"]))  # [3]
        share = (_free_color(z, CLOTHING_COLOR) - black) / (255 - black)  # [N, 3]
        colors = dark[:, :3] + (white - dark)[:, :3] * share[:, :, None, None]
        return torch.cat([torch.minimum(colors.clamp_min(0), dark[:, 3:]), dark[:, 3:]], dim=1)


def leading(z: Tensor, attribute: str) -> Tensor:
    """Which option of a shape z [N, Z_DIM] chooses: int64 [N]."""
    start, options = SHAPES[attribute]
    scores = z[:, start : start + len(options)].clone()  # [N, K]
    scores[:, 0] += _FAVOUR[attribute]
    return scores.argmax(dim=1)


def _position(z: Tensor, attribute: str) -> Tensor:
    """Place on a colour path, float32 [N] from 0 to the number of its options minus one."""
    start, options = PATHS[attribute]
    position: Tensor = torch.special.ndtr(z[:, start]) * (len(options) - 1)
    return position


def _along(layers: Tensor, position: Tensor, kinds: Tensor | None = None) -> Tensor:
    """Layers [K, 4, R, R] (or [H, K, …] and kinds [N]) between two neighbours: [N, 4, R, R]."""
    lower = position.long().clamp_max(layers.shape[0 if kinds is None else 1] - 2)
    share = (position - lower)[:, None, None, None]
    first = layers[lower] if kinds is None else layers[kinds, lower]
    second = layers[lower + 1] if kinds is None else layers[kinds, lower + 1]
    return torch.lerp(first.float(), second.float(), share)


def _free_color(z: Tensor, start: int) -> Tensor:
    """RGB [N, 3] from _DARKEST to 255."""
    color: Tensor = _DARKEST + (255 - _DARKEST) * torch.special.ndtr(z[:, start : start + 3])
    return color


def _pick(layers: LayerSet, attribute: str) -> Tensor:
    picked: Tensor = getattr(layers, attribute)[_indices(attribute, SHAPES[attribute][1])]
    return picked


def _indices(attribute: str, names: tuple[str, ...]) -> list[int]:
    known = list(OPTIONS[attribute])
    return [known.index(name) for name in names]


def _rgb(color: str) -> list[float]:
    return [float(int(color[i : i + 2], 16)) for i in (1, 3, 5)]
