"""Draws contact sheets: titled sections of pictures with captions, on one calm page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

PAGE = (248, 246, 241)
INK = (33, 37, 41)
GREY = (112, 117, 122)
ACCENT = (178, 74, 46)
RULE = (221, 216, 206)

WIDTH = 1680
MARGIN = 56
GUTTER = 32
PAIR_GAP = 26  # room for the arrow between before and after
RADIUS = 10
CAPTION_HEIGHT = 62


@dataclass(frozen=True)
class Cell:
    """One picture, or a before and an after, with a bold line and a grey one below."""

    pictures: Sequence[Image.Image]
    label: str
    note: str = ""
    # (x, y, width, height) as shares of the picture: drawn round the region, on the last picture.
    outline: tuple[float, float, float, float] | None = None
    outline_is_round: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with a sentence, and rows of `columns` cells whose pictures share one height.

    Without a title, the rows go on from the section above.
    """

    title: str
    text: str
    columns: int
    picture_height: int
    cells: Sequence[Cell]


def draw_sheet(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> Image.Image:
    """The whole page, RGB."""
    height = MARGIN + 100 + sum(map(_section_height, sections)) + 44 + MARGIN // 2
    page = Image.new("RGB", (WIDTH, height), PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN - 8), title, INK, _font(46))
    draw.text((MARGIN, MARGIN + 54), subtitle, GREY, _font(21))
    y = MARGIN + 100
    for section in sections:
        _draw_section(page, draw, section, y)
        y += _section_height(section)
    draw.text((MARGIN, y + 10), footer, GREY, _font(17))
    return page


def _section_height(section: Section) -> int:
    rows = -(-len(section.cells) // section.columns)
    return _heading_height(section) + rows * (section.picture_height + CAPTION_HEIGHT + 22)


def _heading_height(section: Section) -> int:
    return 96 if section.title else 0


def _draw_section(page: Image.Image, draw: ImageDraw.ImageDraw, section: Section, y: int) -> None:
    if section.title:
        draw.line((MARGIN, y + 18, WIDTH - MARGIN, y + 18), RULE, 2)
        draw.text((MARGIN, y + 38), section.title, ACCENT, _font(28))
        after_title = MARGIN + draw.textlength(section.title, _font(28)) + 18
        draw.text((after_title, y + 45), section.text, GREY, _font(19))
    width = (WIDTH - 2 * MARGIN - (section.columns - 1) * GUTTER) // section.columns
    for i, cell in enumerate(section.cells):
        row, column = divmod(i, section.columns)
        left = MARGIN + column * (width + GUTTER)
        top = y + _heading_height(section) + row * (section.picture_height + CAPTION_HEIGHT + 22)
        _draw_cell(page, draw, cell, (left, top), (width, section.picture_height))


def _draw_cell(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    cell: Cell,
    at: tuple[int, int],
    size: tuple[int, int],
) -> None:
    left, top = at
    count = len(cell.pictures)
    slot = (size[0] - (count - 1) * PAIR_GAP) // count
    for i, picture in enumerate(cell.pictures):
        shown = _fitted(picture, (slot, size[1]))
        x = left + i * (slot + PAIR_GAP)
        # Smaller pictures keep to the left in a single cell and to the centre in a pair.
        px = x + ((slot - shown.width) // 2 if count > 1 else 0)
        py = top + (size[1] - shown.height) // 2
        if cell.outline is not None and i == count - 1:
            _outline(shown, cell.outline, cell.outline_is_round)
        page.paste(shown, (px, py), _rounded(shown.size))
        if i:
            _arrow(draw, x - PAIR_GAP // 2, top + size[1] // 2)
    draw.text((left, top + size[1] + 12), _cut(draw, cell.label, size[0], 21), INK, _font(21))
    draw.text((left, top + size[1] + 39), _cut(draw, cell.note, size[0], 16), GREY, _font(16))


def _fitted(picture: Image.Image, box: tuple[int, int]) -> Image.Image:
    """The largest copy that fits into the box."""
    scale = min(box[0] / picture.width, box[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _rounded(size: tuple[int, int]) -> Image.Image:
    """A mask with round corners; drawn four times as large, as Pillow does not smooth edges."""
    mask = Image.new("L", (size[0] * 4, size[1] * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle(
        (0, 0, size[0] * 4 - 1, size[1] * 4 - 1), RADIUS * 4, fill=255
    )
    return mask.resize(size, Image.Resampling.LANCZOS)


def _outline(
    picture: Image.Image, share: tuple[float, float, float, float], is_round: bool
) -> None:
    x, y, w, h = share
    box = (
        round(x * picture.width),
        round(y * picture.height),
        round((x + w) * picture.width) - 1,
        round((y + h) * picture.height) - 1,
    )
    draw = ImageDraw.Draw(picture)
    shape = draw.ellipse if is_round else draw.rectangle
    shape(box, outline=(255, 255, 255), width=2)


def _arrow(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.polygon([(x - 4, y - 7), (x + 5, y), (x - 4, y + 7)], fill=ACCENT)


def _cut(draw: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    """The text, shortened until it fits."""
    if draw.textlength(text, _font(size)) <= width:
        return text
    while text and draw.textlength(text + "…", _font(size)) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
