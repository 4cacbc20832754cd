"""PSNR against what it costs: data, and time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from comparison.plots.decibels import Trace, psnr_range, scale_psnr
from comparison.plots.panels import (
    by_panel,
    full_data,
    label_left,
    legend,
    overall,
    regime_handles,
    small_multiples,
)
from comparison.plots.remarks import Floor
from comparison.plots.scales import log_percent, log_seconds
from comparison.plots.style import INK, Look, Palette, styled
from comparison.results.formatting import format_psnr
from comparison.results.statistics import Summary
from comparison.results.untrained import wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL = "PSNR-Y [dB]"

_BESIDE = 0.3
"""Share of the gap between two budgets over which points at the same budget are spread."""

_SMALLEST, _LARGEST = 3.5, 9.5
"""Diameters in points of the markers at the smallest and the largest budget."""


@styled
def psnr_against_budget(summaries: Sequence[Summary], palette: Palette) -> Figure | None:
    """A curve for each regime, over the share of the data; full data a line with a band of one standard deviation.

    Points at the same budget are moved sideways a little, so that none hides another.

    Args:
        summaries: lines of the table; those about the mean over the test sets are drawn.
        palette: with all their regimes.

    Returns:
        One panel per network, recipe and use of a teacher; None where there is nothing but full data.
    """
    lines = overall(summaries)
    panels = by_panel(lines, palette.reference)
    if not panels:
        return None
    figure, axes = small_multiples(list(panels))
    regimes = palette.sort(line.group.regime for group in panels.values() for line in group)
    traces = {}
    for panel, group in panels.items():
        full = full_data(lines, panel, palette.reference)
        traces[panel] = [*_curves(axes[panel], group, palette, regimes), *(_trace(line, line.percent) for line in full)]
        for line in full:
            _full_line(axes[panel], line, psnr_range(traces[panel], palette).high, panel.teacher)
    scale_psnr(axes, traces, palette, _floor(lines))
    label_left(axes, _LABEL)
    legend(figure, regime_handles(palette, [line.group.regime for line in lines]))
    figure.supxlabel("training data [% of the full set's pixels]", fontsize=10)
    return figure


@styled
def psnr_against_time(summaries: Sequence[Summary], palette: Palette) -> Figure | None:
    """A point for each regime and budget, over the time of distillation and training; larger where the budget is.

    Args:
        summaries: lines of the table; those about the mean over the test sets are drawn.
        palette: with all their regimes.

    Returns:
        One panel per network, recipe and use of a teacher; None where there is nothing but full data.
    """
    lines = [line for line in overall(summaries) if line.total_seconds > 0]  # the axis is logarithmic
    panels = {
        panel: [*group, *full_data(lines, panel, palette.reference)]
        for panel, group in by_panel(lines, palette.reference).items()
    }
    if not panels:
        return None
    figure, axes = small_multiples(list(panels))
    sizes = _sizes(line.group.budget for line in lines)
    for panel, group in panels.items():
        for regime in palette.sort(line.group.regime for line in group):
            _time_curve(axes[panel], [line for line in group if line.group.regime == regime], palette[regime], sizes)
        same_network = [each for other in panels if other.network == panel.network for each in panels[other]]
        log_seconds(axes[panel], [line.total_seconds for line in same_network])
    traces = {panel: [_trace(line, line.total_seconds) for line in group] for panel, group in panels.items()}
    scale_psnr(axes, traces, palette, _floor(lines))
    label_left(axes, _LABEL)
    legend(figure, regime_handles(palette, [line.group.regime for line in lines]))
    figure.supxlabel(f"time of distillation and training{_key(sizes)}", fontsize=10)
    return figure


def _floor(lines: Sequence[Summary]) -> Floor:
    """Of the mean over the test sets, which any line tells."""
    return Floor(wording(lines).label, lines[0].psnr_y_untrained)


def _trace(line: Summary, x: float) -> Trace:
    """A single point."""
    return Trace(line.group.regime, *(np.array([value]) for value in (x, line.psnr_y, line.psnr_y_std or 0.0)))


def _curves(axes: Axes, lines: Sequence[Summary], palette: Palette, regimes: Sequence[str]) -> list[Trace]:
    """Draws a curve for each regime; returns its points, where they are drawn."""
    points: list[Trace] = []
    budgets = sorted({line.group.budget or line.percent for line in lines})
    width = _spread(budgets)
    for number, regime in enumerate(regimes):
        own = sorted((line for line in lines if line.group.regime == regime), key=lambda line: line.percent)
        aside = math.exp(width * ((number + 0.5) / len(regimes) - 0.5))
        look = palette[regime]
        axes.errorbar(
            [line.percent * aside for line in own],
            [line.psnr_y for line in own],
            [math.nan if line.psnr_y_std is None else line.psnr_y_std for line in own],
            color=look.colour, marker=look.marker, ls=look.dashes, elinewidth=1,
        )  # fmt: skip
        points += [_trace(line, line.percent * aside) for line in own]
    log_percent(axes, budgets)
    axes.grid(axis="y")
    return points


def _spread(budgets: Sequence[float]) -> float:
    """Logarithm of the factor between the leftmost and the rightmost of the points at one budget."""
    gaps = [math.log(above / below) for below, above in pairwise(budgets)]
    return _BESIDE * min(gaps, default=1.0)


def _full_line(axes: Axes, line: Summary, highest: float, teacher: bool) -> None:
    """Named above its left end, or above whatever is higher: no curve runs through the name."""
    axes.axhline(line.psnr_y, color=INK, lw=1.2)
    if line.psnr_y_std is not None:
        axes.axhspan(line.psnr_y - line.psnr_y_std, line.psnr_y + line.psnr_y_std, color=INK, alpha=0.12, lw=0)
    name = f"{line.group.regime} {format_psnr(line.psnr_y)}" + ", no teacher" * teacher
    place: dict[str, Any] = {"xy": (0.02, highest), "xycoords": ("axes fraction", "data"), "xytext": (0, 3)}
    axes.annotate(name, textcoords="offset points", fontsize=9, **place)


def _time_curve(axes: Axes, lines: Sequence[Summary], look: Look, sizes: dict[float | None, float]) -> None:
    """One regime of a panel: a marker for each budget, joined by a thin line in the order of the budgets."""
    lines = sorted(lines, key=lambda line: line.percent)
    seconds, psnr = [line.total_seconds for line in lines], [line.psnr_y for line in lines]
    axes.plot(seconds, psnr, color=look.colour, ls=look.dashes, lw=0.8, alpha=0.6)
    for line in lines:
        size = sizes.get(line.group.budget, _LARGEST)
        axes.plot(line.total_seconds, line.psnr_y, color=look.colour, marker=look.marker, ms=size, mew=0)
    axes.grid()


def _sizes(budgets: Iterable[float | None]) -> dict[float | None, float]:
    """Diameters by budget, growing; what has none, such as full data, gets the largest."""
    found = sorted({budget for budget in budgets if budget is not None})
    middle = [(_SMALLEST + _LARGEST) / 2]
    return dict(zip(found, middle if len(found) == 1 else np.linspace(_SMALLEST, _LARGEST, len(found)), strict=True))


def _key(sizes: dict[float | None, float]) -> str:
    budgets = ", ".join(f"{budget:.3g}" for budget in sizes)
    return f"; markers grow with the budget: {budgets} %" if len(sizes) > 1 else ""
