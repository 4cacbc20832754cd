"""Pictures inside the page."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

from PIL import Image

SHEET = (1200, 1600)
"""Largest contact sheet in pixels, width and height: sharp on a wide screen, small in the file."""

SHEET_QUALITY = 82


class Embedded(NamedTuple):
    """A picture as an attribute of `<img>`.

    Attributes:
        src: a `data:` address.
        width: in pixels.
        height: in pixels.
    """

    src: str
    width: int
    height: int


def embed_crop(picture: Image.Image) -> Embedded:
    """Without any loss: crops are there to be judged pixel by pixel."""
    return _embed(picture, lossless=True)


def embed_sheet(picture: Image.Image) -> Embedded:
    """Bounded in size and compressed: contact sheets are there for the overall impression."""
    smaller = picture.copy()
    smaller.thumbnail(SHEET, Image.Resampling.LANCZOS)
    return _embed(smaller, quality=SHEET_QUALITY)


def _embed(picture: Image.Image, **options: Any) -> Embedded:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", **options)
    return Embedded(f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", *picture.size)
