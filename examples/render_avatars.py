"""Draws the sample avatars again (needs the development environment, for the data set's own code).

    .venv-dev/bin/python examples/render_avatars.py

Their seeds are from the held-out range: no network has seen them in training.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from velatura.training.avatars.compose import (
    HELD_OUT_SEED,
    Avatar,
    compose_images,
    sample_avatar,
)
from velatura.training.avatars.layers import LayerSet, render_layers

IMAGES = Path(__file__).parent / "images"


@dataclass(frozen=True)
class Portrait:
    """One picture: a held-out seed, what is fixed about it, and its size in pixels."""

    name: str
    seed: int
    fixed: dict[str, str]
    width: int
    height: int


# The seed chooses everything that is not fixed here; what the demo changes starts out plain.
PORTRAITS = (
    Portrait("rowan", 47, {"mouth": "neutral"}, 512, 512),
    Portrait("noor", 49, {"mouth": "smile", "accessory": "none"}, 512, 512),
    Portrait("malik", 55, {"mouth": "slight_smile", "eyes": "open"}, 512, 512),
    Portrait("iris", 20, {"mouth": "slight_smile", "eyes": "open"}, 512, 512),
    Portrait("dario", 54, {"mouth": "neutral", "eyes": "open", "brows": "neutral"}, 512, 512),
    Portrait("frida", 39, {"mouth": "smile", "eyes": "open"}, 512, 512),
    Portrait("august", 53, {"mouth": "neutral", "eyes": "open"}, 512, 512),
    Portrait("sven", 28, {"mouth": "neutral", "eyes": "open", "brows": "neutral"}, 720, 540),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder to write to")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    layers: dict[int, LayerSet] = {}
    for portrait in PORTRAITS:
        side = min(portrait.width, portrait.height)
        if side not in layers:
            layers[side] = render_layers(side)
        path = out / f"{portrait.name}.png"
        draw(portrait, layers[side]).save(path, optimize=True)
        print(path)


def draw(portrait: Portrait, layers: LayerSet) -> Image.Image:
    """The avatar in the centre; in a wider picture its background goes on to both sides."""
    avatar = sample_avatar(HELD_OUT_SEED + portrait.seed).with_choices(**portrait.fixed)
    face = _image(avatar, layers)
    picture = _wide_background(avatar, portrait, layers)
    left = (portrait.width - face.width) // 2
    picture.paste(face, (left, 0))
    return picture


def _image(avatar: Avatar, layers: LayerSet) -> Image.Image:
    pixels = compose_images([avatar], layers)[0]  # [3, R, R]
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _wide_background(avatar: Avatar, portrait: Portrait, layers: LayerSet) -> Image.Image:
    # One column of the gradient that compose_images draws, stretched sideways.
    ramp = Image.new("RGB", (1, layers.resolution))
    above, below = avatar.background
    for y in range(layers.resolution):
        t = y / (layers.resolution - 1)
        ramp.putpixel(
            (0, y), tuple(round(a + (b - a) * t) for a, b in zip(above, below, strict=True))
        )
    return ramp.resize((portrait.width, portrait.height), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
