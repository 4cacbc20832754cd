"""What all plots have in common: one look for each regime, one set of fonts and lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

WIDTH = 7.0
"""Of every figure, in inches: the text width of a page; scaled to the width of a phone, its text can still be read."""

INK = "#1b1b1b"
"""Text, axes and full data. `to_svg` replaces it by `currentColor`: nothing that has to stay dark may have it."""

MUTED = "#808080"
"""Remarks and the baseline: the grey that stands out as much from white as from black."""

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""M. Okabe and K. Ito's palette for the colour-blind, without black and the yellow that white paper swallows."""

_MARKERS = ("s", "^", "D", "v", "P", "X", "p")
_DASHES = ("-", "--", "-.", ":")

_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that plots are the same everywhere
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # a name with two dollar signs is a name
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "errorbar.capsize": 2.5,
}


class Look(NamedTuple):
    """How a regime is drawn.

    Attributes:
        colour: of its line, markers and bars.
        marker: matplotlib's code.
        dashes: line style, matplotlib's code.
    """

    colour: str
    marker: str
    dashes: str


class Palette:
    """One look for each regime in all plots, told apart by more than colour.

    Colours go round after six regimes, markers after seven and dashes with the colours, so that 24 regimes look
    different; the reference is always ink with a star, the baseline always grey with a circle.

    Args:
        regimes: names in any order, with repetitions; their sorted order decides, so that the same plan gives the same
            looks in every run.
        reference: regime of the full data.
        baseline: regime that the others are compared with.
    """

    def __init__(self, regimes: Iterable[str], reference: str = "full", baseline: str = "random") -> None:
        self.reference = reference
        self.baseline = baseline
        found = set(regimes)
        others = sorted(found - {reference, baseline})
        self.names = [name for name in (reference, baseline) if name in found] + others
        self._looks = {name: _look(number) for number, name in enumerate(others)}
        self._looks |= {reference: Look(INK, "*", "-"), baseline: Look(MUTED, "o", "-")}

    def __getitem__(self, regime: str) -> Look:
        """The look of a regime that the palette was made for.

        Raises:
            KeyError: for any other.
        """
        return self._looks[regime]

    def sort(self, regimes: Iterable[str]) -> list[str]:
        """Each once, in the order of all plots: reference, baseline, then by name."""
        return sorted(set(regimes), key=self.names.index)


def _look(number: int) -> Look:
    return Look(
        _COLOURS[number % len(_COLOURS)],
        _MARKERS[number % len(_MARKERS)],
        _DASHES[number // len(_COLOURS) % len(_DASHES)],
    )


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Gives a function that draws our fonts, lines and colours; matplotlib's own settings are left as they are."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib as mpl

        with mpl.rc_context(_SETTINGS):
            return draw(*args, **kwargs)

    return wrapper
