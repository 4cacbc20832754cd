"""Logarithmic axes with ticks that people read: percentages, durations, powers of ten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from comparison.plots.style import WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
_UNITS = (("d", DAY), ("h", HOUR), ("min", MINUTE), ("s", 1.0))

_MARGIN = 0.4  # inches of a panel's width beside its axes

_DURATIONS = {
    **{number: f"{number:g} s" for number in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)},
    **{number * MINUTE: f"{number} min" for number in (1, 2, 5, 10, 20, 30)},
    **{number * HOUR: f"{number} h" for number in (1, 2, 5, 10)},
    **{number * DAY: f"{number} d" for number in (1, 2, 5, 10, 20, 50, 100)},
}
"""Ticks of an axis of time, by seconds."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def log_percent(axes: Axes, budgets: Sequence[float], margin: float = 1.35) -> None:
    """A logarithmic x axis with a tick at each budget whose label has room.

    Args:
        axes: of the plot, in a grid.
        budgets: in percent, at least one, above 0.
        margin: factor between the outermost budgets and the ends of the axis.
    """
    low, high = min(budgets) / margin, max(budgets) * margin
    _log_x(axes, low, high, {budget: f"{budget:.3g}" for budget in budgets}, room=0.36)


def log_seconds(axes: Axes, seconds: Sequence[float], span: float = 4.0) -> None:
    """A logarithmic x axis of durations.

    Args:
        axes: of the plot, in a grid.
        seconds: what is to be seen, at least one, above 0.
        span: least factor between the ends, so that a hair's breadth of time does not look like a difference.
    """
    low, high = min(seconds) / 1.3, max(seconds) * 1.3
    widening = max(1.0, math.sqrt(span * low / high))
    _log_x(axes, low / widening, high * widening, _DURATIONS, room=0.5)


def log_frequency(axes: Axes, lowest: float) -> None:
    """A logarithmic x axis from the lowest frequency, in cycles per pixel, to that of Nyquist, 0.5."""
    marks = [digit * 10.0**power for power in range(-4, 0) for digit in (1, 2, 5)]
    _log_x(axes, lowest * 0.95, 0.525, {mark: f"{mark:g}" for mark in marks}, room=0.36)


def log_powers(axes: Axes, low: float, high: float) -> None:
    """A logarithmic y axis with ticks at powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_yscale("log")
    axes.set_ylim(low, high)
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    step = 1 + (last - first) // 6
    axes.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(first, last + 1, step)]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
    axes.yaxis.set_minor_locator(NullLocator())


def power_of_ten(value: float) -> str:
    """Such as `10⁻³`, in plain text: formulas would be set in fonts that a page does not have."""
    return "10" + str(round(math.log10(value))).translate(_SUPERSCRIPTS)


def spaced(marks: Sequence[float], low: float, high: float, apart: float) -> list[float]:
    """Marks between the ends of a logarithmic axis, each at least `apart` of its length from the one before."""
    least = apart * math.log(high / low)
    kept: list[float] = []
    for mark in sorted(set(marks)):
        if low <= mark <= high and (not kept or math.log(mark / kept[-1]) >= least):
            kept.append(mark)
    return kept


def brief_duration(seconds: float) -> str:
    """Two digits or three and one unit, such as `45 s`, `5.1 min`, `26 min`, `3.2 h`."""
    unit, size = time_unit(seconds)
    return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}" if seconds else "0 s"


def time_unit(seconds: float) -> tuple[str, float]:
    """Name and seconds of the unit that a duration is told in: the largest of which it has two or more."""
    return next((unit for unit in _UNITS if seconds >= 2 * unit[1]), _UNITS[-1])


def panel_width(axes: Axes) -> float:
    """Inches that the axes of a panel have, or a little more, before anything is laid out."""
    grid = axes.get_gridspec()
    return WIDTH / (grid.ncols if grid else 1) - _MARGIN


def _log_x(axes: Axes, low: float, high: float, labels: dict[float, str], room: float) -> None:
    """Ticks are `room` inches apart, or more, in a panel that has the figure's width for itself or its share of it."""
    from matplotlib.ticker import NullLocator

    ticks = spaced(list(labels), low, high, room / panel_width(axes))
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, labels=[labels[tick] for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
