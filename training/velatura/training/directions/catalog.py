"""Which edits the avatar generator offers by name, and what each means in terms of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from velatura.training.avatars.parts import OPTIONS

Color = tuple[int, int, int]


@dataclass(frozen=True)
class NamedEdit:
    """`target` sets attributes to options; `background`, where given, sets the gradient's colours.

    `regions` are the mask classes that the edit is meant to change.
    """

    name: str
    attribute: str
    description: str
    target: Mapping[str, str] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    background: tuple[Color, Color] | None = None


_FACE = ("mouth", "skin", "facial_hair")
_HAIR = ("hair", "brows", "facial_hair")


def _mouth(name: str, option: str, description: str) -> NamedEdit:
    return NamedEdit(name, "mouth", description, {"mouth": option}, _FACE)


def _background(name: str, above: Color, below: Color) -> NamedEdit:
    color = name.removeprefix("background_")
    return NamedEdit(
        name, "background", f"Turns the background {color}.", {}, ("background",), (above, below)
    )


def _palette() -> list[NamedEdit]:
    """One edit for every hair colour, clothing colour and garment of the data set."""
    hair = [
        NamedEdit(
            f"hair_{color}",
            "hair_color",
            f"Dyes hair, beard and moustache {color.replace('_', ' ')}.",
            {"hair_color": color},
            _HAIR,
        )
        for color in OPTIONS["hair_color"]
        if color != "dark_brown"  # too near to black and brown to be told apart
    ]
    cloth = [
        NamedEdit(
            f"clothing_{color}",
            "clothing_color",
            f"Turns the clothes {color}.",
            {"clothing_color": color},
            ("clothing",),
        )
        for color in OPTIONS["clothing_color"]
    ]
    garments = [
        NamedEdit(
            garment,
            "clothing",
            f"Puts on a garment of the kind {garment.replace('_', ' ')}.",
            {"clothing": garment},
            ("clothing", "skin"),
        )
        for garment in ("blazer", "overall")
    ]
    return hair + cloth + garments


_ALL_HAIR = ("hair", "background", "skin", "clothing")
_LENSES = ("glasses", "eyes", "brows", "skin")

EDITS: tuple[NamedEdit, ...] = (
    _mouth("smile", "smile", "A broad smile."),
    _mouth("sad", "sad", "Corners of the mouth down."),
    _mouth("mouth_open", "open", "A small open mouth, as in disbelief."),
    _mouth("scream", "scream", "A wide open mouth."),
    _mouth("grimace", "grimace", "Teeth together and showing."),
    _mouth("tongue", "tongue", "A laugh with the tongue out."),
    _mouth("serious", "neutral", "A level mouth."),
    NamedEdit(
        "surprised",
        "expression",
        "Wide eyes, raised brows and an open mouth.",
        {"mouth": "open", "eyes": "surprised", "brows": "raised"},
        ("mouth", "eyes", "brows", "skin"),
    ),
    NamedEdit("closed_eyes", "eyes", "Both eyes shut.", {"eyes": "closed"}, ("eyes", "skin")),
    NamedEdit("wink", "eyes", "One eye shut.", {"eyes": "wink"}, ("eyes", "skin")),
    NamedEdit("happy_eyes", "eyes", "Laughing eyes.", {"eyes": "happy"}, ("eyes", "skin")),
    NamedEdit("open_eyes", "eyes", "Plain open eyes.", {"eyes": "open"}, ("eyes", "skin")),
    NamedEdit("raised_brows", "brows", "Brows up.", {"brows": "raised"}, ("brows", "skin")),
    NamedEdit("angry_brows", "brows", "Brows down.", {"brows": "angry"}, ("brows", "skin")),
    NamedEdit("sad_brows", "brows", "Worried brows.", {"brows": "sad"}, ("brows", "skin")),
    NamedEdit("glasses", "accessory", "Framed glasses.", {"accessory": "glasses"}, _LENSES),
    NamedEdit(
        "round_glasses", "accessory", "Round glasses.", {"accessory": "round_glasses"}, _LENSES
    ),
    NamedEdit("sunglasses", "accessory", "Dark glasses.", {"accessory": "sunglasses"}, _LENSES),
    NamedEdit("no_glasses", "accessory", "Takes glasses off.", {"accessory": "none"}, _LENSES),
    NamedEdit("beard", "facial_hair", "A beard.", {"facial_hair": "beard"}, _FACE),
    NamedEdit("full_beard", "facial_hair", "A long beard.", {"facial_hair": "full_beard"}, _FACE),
    NamedEdit("moustache", "facial_hair", "A moustache.", {"facial_hair": "moustache"}, _FACE),
    NamedEdit("shaved", "facial_hair", "No beard, no moustache.", {"facial_hair": "none"}, _FACE),
    NamedEdit("long_hair", "hair", "Long straight hair.", {"hair": "straight"}, _ALL_HAIR),
    NamedEdit("short_hair", "hair", "Short flat hair.", {"hair": "short_flat"}, _ALL_HAIR),
    NamedEdit("bun", "hair", "Hair up in a bun.", {"hair": "bun"}, _ALL_HAIR),
    NamedEdit("fro", "hair", "Round, curly, voluminous hair.", {"hair": "fro"}, _ALL_HAIR),
    NamedEdit("bald", "hair", "No hair.", {"hair": "bald"}, _ALL_HAIR),
    NamedEdit("skin_pale", "skin", "Paler skin.", {"skin": "pale"}, ("skin",)),
    NamedEdit("skin_brown", "skin", "Browner skin.", {"skin": "dark_brown"}, ("skin",)),
    *_palette(),
    _background("background_blue", (90, 150, 235), (60, 110, 215)),
    _background("background_green", (110, 205, 130), (80, 170, 105)),
    _background("background_red", (225, 90, 90), (190, 65, 70)),
    _background("background_light", (245, 245, 245), (225, 225, 225)),
    _background("background_dark", (70, 70, 75), (45, 45, 50)),
)
