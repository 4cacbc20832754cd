"""Where the time goes: distillation and training."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from comparison.plots.panels import Panel, legend, overall, small_multiples
from comparison.plots.scales import brief_duration, time_unit
from comparison.plots.style import INK, Palette, styled
from comparison.results.formatting import format_percent
from comparison.results.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAR = 0.19  # inches of height
_PALE = 0.4  # opacity of the part of a bar that is training
_ROOM = 1.45  # length of the axis in longest bars, for what is written at their ends


Bar = tuple[str, float | None]
"""Regime and budget in percent."""


@styled
def cost_bars(summaries: Sequence[Summary], palette: Palette) -> Figure | None:
    """A bar for each regime and budget, the part that is distillation solid, that of the training pale.

    Args:
        summaries: lines of the table; those about the mean over the test sets are drawn.
        palette: with all their regimes.

    Returns:
        One panel per network and use of a teacher, over all recipes; None where there are no lines.
    """
    panels: dict[Panel, list[Summary]] = {}
    for line in overall(summaries):
        panels.setdefault(Panel(line.group.network, "", line.group.teacher), []).append(line)
    if not panels:
        return None
    bars = sorted(
        {_bar(line) for lines in panels.values() for line in lines},
        key=lambda bar: (palette.names.index(bar[0]), bar[1] or 0.0),
    )
    figure, axes = small_multiples(list(panels), height=_BAR * len(bars) + 0.8, share=False)
    for panel, lines in panels.items():
        _draw(axes[panel], [[line for line in lines if _bar(line) == bar] for bar in bars], palette)
        _label(axes[panel], bars)
    _legend(figure)
    return figure


def _bar(line: Summary) -> Bar:
    return line.group.regime, line.group.budget


def _draw(axes: Axes, bars: Sequence[Sequence[Summary]], palette: Palette) -> None:
    """Means over the recipes; the place of a bar without lines stays empty."""
    unit, size = time_unit(max(line.total_seconds for lines in bars for line in lines))
    longest = 0.0
    for place, lines in enumerate(bars):
        if not lines:
            continue
        colour = palette[lines[0].group.regime].colour
        distillation = fmean(line.distillation_seconds for line in lines)
        total = distillation + fmean(line.training_seconds for line in lines)
        axes.barh(place, distillation / size, color=colour, height=0.75)
        axes.barh(
            place, (total - distillation) / size, left=distillation / size, color=colour, alpha=_PALE, height=0.75
        )
        end = (total / size, place)
        axes.annotate(brief_duration(total), end, (3, 0), textcoords="offset points", va="center", fontsize=9)
        longest = max(longest, total / size)
    axes.set_xlim(0, _ROOM * longest or 1.0)
    axes.set_xlabel(f"time [{unit}]")


def _label(axes: Axes, bars: Sequence[Bar]) -> None:
    """Names in the leftmost column only: bars are in the same places in all panels."""
    spec = axes.get_subplotspec()
    labels = [regime if budget is None else f"{regime} {format_percent(budget)}" for regime, budget in bars]
    axes.set_yticks(range(len(bars)), labels=labels if spec is None or spec.is_first_col() else [""] * len(bars))
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    legend(figure, [Patch(color=INK, label="distillation"), Patch(color=INK, alpha=_PALE, lw=0, label="training")])
