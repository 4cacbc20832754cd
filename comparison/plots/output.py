"""Figures as files: PNG for slides and dashboards, SVG for inlining in a page."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from comparison.plots.style import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def save_png(figure: Figure, path: Path) -> None:
    """Writes it with 150 dots per inch on white, under a temporary name that it then loses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(temporary, format="png", dpi=150, facecolor="white")
    temporary.replace(path)


def to_svg(figure: Figure) -> str:
    """An `<svg>` element that fits into a page as if it were part of it.

    It is as wide as what it is in, has no background, takes text and axes from the page's colour (`currentColor`) and
    the page's words, which can be searched and copied; no style of it reaches anything else. The same figure gives the
    same text.

    Args:
        figure: its label is the title that screen readers speak, and makes its ids unlike those of other figures.
    """
    import matplotlib as mpl

    name = str(figure.get_label()) or "plot"
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    return _embeddable(buffer.getvalue(), name)


def _embeddable(svg: str, name: str) -> str:
    prefix = re.sub(r"\W+", "-", name).lower()
    _, box, body = re.split(r"<svg\b[^>]*?(viewBox=\"[^\"]*\")[^>]*>", svg, maxsplit=1)
    body = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL
    )  # it would style the page
    body = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{prefix}-", body).replace(INK, "currentColor")
    style = "stroke-linejoin: round; stroke-linecap: butt; height: auto"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box} width="100%"'
    title = f'<title id="{prefix}-title">{escape(name)}</title>'
    return f'{head} role="img" aria-labelledby="{prefix}-title" style="{style}">{title}{body.strip()}\n'
