"""Contact sheets: rows of captioned patches under a title, each patch large enough to be judged."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from callbacks.drawing import CAPTION, GAP

CELL = 128
"""Side that patches are brought near to by a whole factor, in pixels of the sheet."""
MARGIN = 16
LEAST_WIDTH = 8 * (CELL + GAP) - GAP + 2 * MARGIN
"""Of a titled sheet, so that titles have room above a few patches, too."""


@dataclass(frozen=True)
class SheetRow:
    """Patches side by side.

    Attributes:
        patches: uint8 (B, 3, side, side), on the CPU; B may be 0.
        captions: B of them, a few characters each; they stand below the patches.
        label: lines that stand to the left of the row.
    """

    patches: Tensor
    captions: Sequence[str]
    label: Sequence[str] = ()


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the positions 0 .. count - 1, evenly from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def in_rows(patches: Tensor, captions: Sequence[str], columns: int) -> list[SheetRow]:
    """Patches in rows of `columns`, the last of which may be shorter."""
    starts = range(0, len(patches), columns)
    return [SheetRow(patches[start : start + columns], captions[start : start + columns]) for start in starts]


def contact_sheet(rows: Sequence[SheetRow], title: Sequence[str] = ()) -> Image.Image:
    """One picture of all rows.

    Args:
        rows: of patches of one side, at least one patch in all.
        title: see `titled`; none for where the text stands beside the picture.
    """
    cell = next(_to_cell(patch).width for row in rows for patch in row.patches)
    font = ImageFont.load_default(size=13)
    labels = max((font.getlength(line) + MARGIN for row in rows for line in row.label), default=0)
    left = MARGIN + round(labels)
    width = left + max(len(row.patches) for row in rows) * (cell + GAP) - GAP + MARGIN
    height = cell + CAPTION + 2 * GAP
    sheet = Image.new("RGB", (width, len(rows) * height + MARGIN), "white")
    for number, row in enumerate(rows):
        _draw_row(sheet, row, left, number * height)
    return titled(sheet, title) if title else sheet


def titled(picture: Image.Image, title: Sequence[str]) -> Image.Image:
    """A picture below its title.

    Args:
        picture: RGB; narrow ones get a margin to the right.
        title: lines, the first in larger letters; long ones are broken at the sheet's width.
    """
    width = max(LEAST_WIDTH, picture.width)
    header = _draw_title(title, width)
    sheet = Image.new("RGB", (width, header.height + picture.height), "white")
    sheet.paste(header, (0, 0))
    sheet.paste(picture, (0, header.height))
    return sheet


def _draw_title(title: Sequence[str], width: int) -> Image.Image:
    heading, font = ImageFont.load_default(size=18), ImageFont.load_default(size=13)
    first = textwrap.wrap(title[0], int((width - 2 * MARGIN) / heading.getlength("n")))
    others = [
        part for line in title[1:] for part in textwrap.wrap(line, int((width - 2 * MARGIN) / font.getlength("n")))
    ]
    header = Image.new("RGB", (width, MARGIN + 26 * len(first) + 18 * len(others) + 2 * GAP), "white")
    draw, top = ImageDraw.Draw(header), MARGIN
    for line in first:
        draw.text((MARGIN, top), line, fill="black", font=heading)
        top += 26
    for line in others:
        draw.text((MARGIN, top), line, fill="dimgray", font=font)
        top += 18
    return header


def _draw_row(sheet: Image.Image, row: SheetRow, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    label, caption = ImageFont.load_default(size=13), ImageFont.load_default(size=12)
    for number, line in enumerate(row.label):
        draw.text((MARGIN, top + 18 * number), line, fill="dimgray" if number else "black", font=label)
    for patch, text in zip(row.patches, row.captions, strict=True):
        image = _to_cell(patch)
        sheet.paste(image, (left, top))
        draw.text((left + image.width / 2, top + image.height + GAP / 2), text, "dimgray", caption, anchor="ma")
        left += image.width + GAP


def _to_cell(patch: Tensor) -> Image.Image:
    """Whole factors only: every pixel of a small patch is seen as it is."""
    image = Image.fromarray(np.ascontiguousarray(patch.permute(1, 2, 0).numpy()))
    if image.width > CELL:
        return image.reduce(max(1, round(image.width / CELL)))
    side = image.width * (CELL // image.width)
    return image.resize((side, side), Image.Resampling.NEAREST)
