"""Renders each part of an avatar alone, as premultiplied RGBA, so that faces compose fast.

The parts do not interact: rendering every part and colour once (a few hundred renders) and laying
them over each other gives what rendering whole avatars would, to within rounding.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import python_avatars as pa
import resvg_py
import torch
from PIL import Image
from torch import Tensor

from velatura.training.avatars.parts import OPTIONS

# The drawing is 264 × 280; this square keeps the hair and the shoulders.
VIEW_BOX = "0 8 264 264"

_SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class LayerSet:
    """Premultiplied RGBA layers, uint8 [options…, 4, R, R], of one resolution R."""

    resolution: int
    body: Tensor  # [skin, 4, R, R]
    clothing: Tensor  # [clothing, clothing_color, 4, R, R]
    mouth: Tensor
    nose: Tensor  # [1, 4, R, R]
    eyes: Tensor
    brows: Tensor
    facial_hair: Tensor  # [facial_hair, hair_color, 4, R, R]
    hair: Tensor  # [hair, hair_color, 4, R, R]
    accessory: Tensor


def render_layers(
    resolution: int, advance: Callable[[], None] = lambda: None, view_box: str = VIEW_BOX
) -> LayerSet:
    """Render every layer at `resolution` squared; `advance` is called once for each render.

    `view_box` is the square of the drawing that is seen: "left top width height".
    """

    def draw(group: str, **parts: object) -> Tensor:
        advance()
        return _render_group(group, resolution, parts, view_box)

    def enum(attribute: str, kind: type) -> list[object]:
        return [getattr(kind, member) for member in OPTIONS[attribute].values()]

    hair_colors = list(OPTIONS["hair_color"].values())
    bald = pa.HairType.NONE
    return LayerSet(
        resolution,
        body=torch.stack([draw("Body", skin_color=c) for c in OPTIONS["skin"].values()]),
        clothing=torch.stack(
            [
                torch.stack(
                    [
                        draw("Clothing", clothing=kind, clothing_color=color)
                        for color in OPTIONS["clothing_color"].values()
                    ]
                )
                for kind in enum("clothing", pa.ClothingType)
            ]
        ),
        mouth=torch.stack([draw("Mouth", mouth=m) for m in enum("mouth", pa.MouthType)]),
        nose=torch.stack([draw("Nose", nose=pa.NoseType.DEFAULT)]),
        eyes=torch.stack([draw("Eyes", eyes=e) for e in enum("eyes", pa.EyeType)]),
        brows=torch.stack([draw("Eyebrow", eyebrows=b) for b in enum("brows", pa.EyebrowType)]),
        facial_hair=torch.stack(
            [
                torch.stack(
                    [
                        draw("Top", top=bald, facial_hair=kind, facial_hair_color=color)
                        for color in hair_colors
                    ]
                )
                for kind in enum("facial_hair", pa.FacialHairType)
            ]
        ),
        hair=torch.stack(
            [
                torch.stack([draw("Top", top=kind, hair_color=color) for color in hair_colors])
                for kind in enum("hair", pa.HairType)
            ]
        ),
        accessory=torch.stack(
            [draw("Top", top=bald, accessory=a) for a in enum("accessory", pa.AccessoryType)]
        ),
    )


def _render_group(group: str, resolution: int, parts: dict[str, object], view_box: str) -> Tensor:
    """Premultiplied RGBA uint8 [4, R, R] of the one group of the drawing."""
    defaults: dict[str, object] = {
        "style": pa.AvatarStyle.TRANSPARENT,
        "top": pa.HairType.NONE,
        "facial_hair": pa.FacialHairType.NONE,
        "accessory": pa.AccessoryType.NONE,
        "clothing": pa.ClothingType.HOODIE,
    }
    root = ElementTree.fromstring(pa.Avatar(**(defaults | parts)).render())  # noqa: S314  our own text
    root.set("viewBox", view_box)
    root.set("width", str(resolution))
    root.set("height", str(resolution))
    _keep_only(root, f"_{group}")
    png = resvg_py.svg_to_bytes(
        svg_string=ElementTree.tostring(root, encoding="unicode"), skip_system_fonts=True
    )
    rgba = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA")).astype(np.uint16)
    alpha = rgba[..., 3:]
    rgba[..., :3] = (rgba[..., :3] * alpha + 127) // 255
    return torch.from_numpy(rgba.astype(np.uint8).transpose(2, 0, 1).copy())


def _keep_only(root: ElementTree.Element, suffix: str) -> None:
    """Remove every group beside the ones that lead to the group whose id ends in `suffix`."""
    parents = {child: parent for parent in root.iter() for child in parent}
    target = next(e for e in root.iter(f"{_SVG}g") if e.get("id") == f"transparent{suffix}")
    node = target
    while node in parents:
        parent = parents[node]
        for sibling in list(parent):
            if sibling is not node and sibling.tag != f"{_SVG}defs":
                parent.remove(sibling)
        node = parent
