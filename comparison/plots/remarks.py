"""Remarks at the edges of a plot on what its y axis does not reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from comparison.plots.scales import panel_width
from comparison.plots.style import INK, MUTED
from comparison.results.formatting import format_psnr

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.085
"""Share of a panel's height that a line of remarks takes."""

_LETTER = 0.085  # inches that a letter of a remark takes, and not less
_MARKER = 0.1  # likewise a marker, with the gap to its text


class Remark(NamedTuple):
    """A text at the lower edge, beside a marker that points down.

    Attributes:
        x: of the marker, in shares of the panel's width.
        psnr: that it is about, in dB.
        text: to its right, or to its left where it would not fit in.
        colour: of the marker; None for a text without one.
    """

    x: float
    psnr: float
    text: str
    colour: str | None = None


def rows(axes: Axes, remarks: Sequence[Remark]) -> list[int]:
    """Lines of the remarks, counted from the lower edge: in the order given, each where no other is in its way."""
    spans = [_span(remark, panel_width(axes)) for remark in remarks]
    found: list[int] = []
    for left, right in spans:
        taken = {row for row, (start, end) in zip(found, spans, strict=False) if start < right and left < end}
        found.append(min(set(range(len(spans))) - taken))
    return found


def write(axes: Axes, remark: Remark, row: int) -> None:
    """Draws a remark on a line counted from the lower edge, whatever the limits of the axes."""
    from matplotlib.markers import CARETDOWN

    y = ROW * row
    if remark.colour is not None:
        place: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        axes.plot([remark.x], [y], color=remark.colour, marker=CARETDOWN, ms=7, ls="", **place)
    left = _goes_left(remark, panel_width(axes))
    aside = 0 if remark.colour is None else 5
    axes.annotate(
        remark.text, (remark.x, y), xycoords="axes fraction", textcoords="offset points",
        xytext=(-aside if left else aside, 2), ha="right" if left else "left", va="bottom", fontsize=9,
        color=MUTED if remark.colour is None else INK,
    )  # fmt: skip


def value_remark(x: float, psnr: float, colour: str) -> Remark:
    """A marker in the colour of a regime, with the value."""
    return Remark(x, psnr, format_psnr(psnr), colour)


class Floor(NamedTuple):
    """What one has without a network.

    Attributes:
        label: such as `bicubic`.
        psnr: in dB.
    """

    label: str
    psnr: float

    def __str__(self) -> str:
        return f"{self.label} {format_psnr(self.psnr)}"


def floor_remark(floor: Floor) -> Remark:
    """In the corner on the right."""
    return Remark(0.98, floor.psnr, f"{floor} \N{DOWNWARDS ARROW}")


def mark_floor(axes: Axes, floor: Floor) -> None:
    """A dotted line with its name, or, where it is above the axis, an arrow that says so."""
    style: dict[str, Any] = {"color": MUTED, "fontsize": 9, "ha": "right"}
    if floor.psnr > axes.get_ylim()[1]:
        axes.text(0.98, 0.97, f"{floor} \N{UPWARDS ARROW}", transform=axes.transAxes, va="top", **style)
        return
    axes.axhline(floor.psnr, color=MUTED, ls=":", lw=1.2)
    place: dict[str, Any] = {"xy": (0.98, floor.psnr), "xycoords": ("axes fraction", "data"), "xytext": (0, 3)}
    axes.annotate(str(floor), textcoords="offset points", **place, **style)


def _goes_left(remark: Remark, width: float) -> bool:
    return remark.x + (_MARKER + _LETTER * len(remark.text)) / width > 1


def _span(remark: Remark, width: float) -> tuple[float, float]:
    """Ends in shares of the panel's width."""
    marker, text = _MARKER / width, _LETTER * len(remark.text) / width
    before, after = (marker + text, marker) if _goes_left(remark, width) else (marker, marker + text)
    return remark.x - before, remark.x + after
