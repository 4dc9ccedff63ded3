"""Which parts of `python-avatars` the data set uses, and what people call them.

Parts that bring scenery of their own (astronaut, bride, gladiator) and hats are left out. An
attribute's options are in a fixed order: its index is the label, so never reorder, only append.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# attribute → our name → the package's enum member or colour
OPTIONS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "skin": {
            "pale": "#FFDBB4",
            "light": "#EDB98A",
            "tanned": "#FD9841",
            "brown": "#D08B5B",
            "dark_brown": "#AE5D29",
            "black": "#614335",
        },
        "clothing": {
            "blazer": "BLAZER_SHIRT",
            "blazer_sweater": "BLAZER_SWEATER",
            "collar_sweater": "COLLAR_SWEATER",
            "hoodie": "HOODIE",
            "overall": "OVERALL",
            "crew_neck": "SHIRT_CREW_NECK",
            "scoop_neck": "SHIRT_SCOOP_NECK",
            "v_neck": "SHIRT_V_NECK",
        },
        "clothing_color": {
            "black": "#262E33",
            "navy": "#25557C",
            "blue": "#5199E4",
            "gray": "#929598",
            "white": "#FFFFFF",
            "green": "#4CAF7A",
            "yellow": "#FFD54F",
            "pink": "#FF488E",
            "red": "#E5484D",
        },
        "mouth": {
            "neutral": "SERIOUS",
            "smile": "SMILE",
            "slight_smile": "DEFAULT",
            "sad": "SAD",
            "open": "DISBELIEF",
            "scream": "SCREAM_OPEN",
            "grimace": "GRIMACE",
            "concerned": "CONCERNED",
            "tongue": "TONGUE",
        },
        "eyes": {
            "open": "DEFAULT",
            "closed": "CLOSED",
            "happy": "HAPPY",
            "squint": "SQUINT",
            "surprised": "SURPRISED",
            "wink": "WINK",
            "side": "SIDE",
        },
        "brows": {
            "neutral": "DEFAULT",
            "raised": "RAISED_EXCITED",
            "angry": "ANGRY",
            "sad": "SAD_CONCERNED",
            "flat": "FLAT_NATURAL",
            "one_raised": "UP_DOWN",
        },
        "facial_hair": {
            "none": "NONE",
            "light_beard": "BEARD_LIGHT",
            "beard": "BEARD_MEDIUM",
            "full_beard": "BEARD_MAGESTIC",
            "moustache": "MOUSTACHE_MAGNUM",
            "fancy_moustache": "MOUSTACHE_FANCY",
        },
        "hair": {
            "bald": "NONE",
            "short_flat": "SHORT_FLAT",
            "short_round": "SHORT_ROUND",
            "short_waved": "SHORT_WAVED",
            "short_curly": "SHORT_CURLY",
            "side_part": "CAESAR_SIDE_PART",
            "dreads": "DREADS",
            "bob": "BOB",
            "bun": "BUN",
            "curly": "CURLY",
            "curvy": "CURVY",
            "straight": "STRAIGHT_1",
            "straight_strand": "STRAIGHT_STRAND",
            "medium": "LONG_NOT_TOO_LONG",
            "fringe": "MIA_WALLACE",
            "fro": "FRO",
        },
        "hair_color": {
            "black": "#2C1B18",
            "dark_brown": "#4A312C",
            "brown": "#724133",
            "auburn": "#A55728",
            "red": "#C93305",
            "blonde": "#D6B370",
            "platinum": "#ECDCBF",
            "silver": "#B9B4B4",
            "pink": "#F59797",
        },
        "accessory": {
            "none": "NONE",
            "glasses": "PRESCRIPTION_2",
            "thin_glasses": "PRESCRIPTION_1",
            "round_glasses": "ROUND",
            "sunglasses": "SUNGLASSES",
            "wayfarers": "WAYFARERS",
        },
    }
)

# How often each option of an attribute is drawn; others are drawn evenly.
WEIGHTS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "facial_hair": (0.5, 0.1, 0.1, 0.1, 0.1, 0.1),
        "accessory": (0.5, 0.1, 0.1, 0.1, 0.1, 0.1),
    }
)

# The background is a vertical gradient: six continuous labels, RGB above and below in [-1, 1].
BACKGROUND_LABELS = 6

# Classes of the masks, by index; each layer of the composition belongs to one.
MASK_CLASSES = (
    "background",
    "skin",
    "hair",
    "brows",
    "eyes",
    "nose",
    "mouth",
    "facial_hair",
    "glasses",
    "clothing",
)


def label_slices() -> dict[str, slice]:
    """Where each attribute's one-hot code lies in the label vector; `background` comes last."""
    slices: dict[str, slice] = {}
    start = 0
    for attribute, options in OPTIONS.items():
        slices[attribute] = slice(start, start + len(options))
        start += len(options)
    slices["background"] = slice(start, start + BACKGROUND_LABELS)
    return slices


LABEL_DIM = label_slices()["background"].stop
