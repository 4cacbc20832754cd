"""Whether a regime is good for one network only: a heat map of regimes and networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from comparison.plots.panels import common_budget, overall
from comparison.plots.style import MUTED, WIDTH, Palette, styled
from comparison.results.formatting import format_percent, format_signed
from comparison.results.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Table = NDArray[np.float64]

_CELL = 0.3  # inches of height
_LETTER = 0.085  # inches of a label's letter
_ON_PALE, _ON_DEEP = "#0a0a0a", "#ffffff"
"""Colours of figures in cells, which are as bright on a dark page as on a light one. Pure black would be left out of an
SVG, where it is the default, unless the page has another one."""

_LEAST_REACH = 0.05
"""Of the colour map, in dB: less of a difference is not to look like one."""

_STRONGEST = 0.75
"""Part of the colour map that is used on either side of its middle: figures stay readable on it."""


@styled
def cross_architecture(summaries: Sequence[Summary], palette: Palette) -> Figure | None:
    """PSNR minus that of full data, for each regime and network at the smallest budget that all share.

    Args:
        summaries: lines of the table; those about the mean over the test sets are drawn.
        palette: with all their regimes.

    Returns:
        One panel per recipe and use of a teacher; None where there are less than two networks with full data.
    """
    lines = [line for line in overall(summaries) if line.group.budget is not None and _has_gap(line)]
    budget = common_budget(line.group for line in lines)
    lines = [line for line in lines if line.group.budget == budget]
    networks = list(dict.fromkeys(line.group.network for line in lines))
    if len(networks) < 2:
        return None
    figure = _draw(lines, networks, palette)
    figure.supxlabel(f"PSNR-Y minus that of full data [dB], with {format_percent(budget)} of its pixels", fontsize=10)
    return figure


def _has_gap(line: Summary) -> bool:
    """False without full data, or where it went to pieces."""
    return line.gap_to_full is not None and math.isfinite(line.gap_to_full)


def _draw(lines: Sequence[Summary], networks: Sequence[str], palette: Palette) -> Figure:
    from matplotlib.figure import Figure

    regimes = palette.sort(line.group.regime for line in lines)
    panels: dict[tuple[bool, str], list[Summary]] = {}
    for line in lines:
        panels.setdefault((line.group.teacher, line.group.recipe), []).append(line)
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(WIDTH, rows * (_CELL * len(regimes) + 1.1) + 0.3), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    strongest = max(abs(line.gap_to_full or 0.0) for line in lines)
    for number, (teacher, recipe) in enumerate(sorted(panels)):
        axes = figure.add_subplot(grid[divmod(number, columns)])
        axes.set_title(", ".join([recipe, "with teacher"][: 1 + teacher]))
        _heat_map(axes, _table(panels[teacher, recipe], regimes, networks), strongest)
        _label(axes, regimes if number % columns == 0 else [""] * len(regimes), networks, WIDTH / columns)
    return figure


def _table(lines: Sequence[Summary], regimes: Sequence[str], networks: Sequence[str]) -> Table:
    """Gaps, (regimes, networks); NaN where there is no line."""
    gaps = np.full((len(regimes), len(networks)), np.nan)
    for line in lines:
        gaps[regimes.index(line.group.regime), networks.index(line.group.network)] = line.gap_to_full
    return gaps


def _heat_map(axes: Axes, gaps: Table, strongest: float) -> None:
    """White is no difference; red is worse than full data, blue better."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    reach = max(strongest, _LEAST_REACH) / _STRONGEST
    mesh = axes.pcolormesh(np.ma.masked_invalid(gaps), cmap=colormaps["RdBu"], norm=Normalize(-reach, reach), lw=0)
    for ((row, column), gap), fill in zip(np.ndenumerate(gaps), mesh.to_rgba(gaps).reshape(-1, 4), strict=True):
        colour = _ink_on(fill) if np.isfinite(gap) else MUTED
        text = format_signed(gap if np.isfinite(gap) else None)
        axes.text(column + 0.5, row + 0.5, text, color=colour, ha="center", va="center_baseline", fontsize=9)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _ink_on(colour: Table) -> str:
    """What can be read on it: luma of BT.601, as a rule of thumb."""
    red, green, blue, _ = colour
    return _ON_PALE if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else _ON_DEEP


def _label(axes: Axes, regimes: Sequence[str], networks: Sequence[str], width: float) -> None:
    """Names of networks are tilted where they would run into one another."""
    room = (width - _LETTER * max(len(name) for name in regimes)) / len(networks)
    tilted = _LETTER * max(len(name) for name in networks) > room
    style: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if tilted else {}
    axes.set_xticks(np.arange(len(networks)) + 0.5, labels=networks, **style)
    axes.set_yticks(np.arange(len(regimes)) + 0.5, labels=regimes)
