"""Validation PSNR while networks train."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from comparison.plots.decibels import Trace, scale_psnr
from comparison.plots.panels import (
    Panel,
    common_budget,
    is_reference,
    label_left,
    legend,
    panel_of,
    regime_handles,
    small_multiples,
)
from comparison.plots.style import Look, Palette, styled
from comparison.results.formatting import format_percent
from comparison.results.rows import Cell, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC = "val/psnr_y"
_BAND = 0.18  # opacity
_SETTLED = 0.15  # share of a training after which values have to be on the axis; before, PSNR climbs from nothing


class Curve(NamedTuple):
    """PSNR of one regime while it is trained on.

    Attributes:
        steps: optimiser steps, (N,).
        mean: over seeds, in dB, (N,).
        std: sample standard deviation over seeds, (N,); 0 for one seed.
    """

    steps: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


Log = dict[int, float]
"""Validation PSNR by step."""


@styled
def learning_curves(rows: Sequence[Row], root: Path, palette: Palette) -> Figure | None:
    """PSNR on the validation images against optimiser steps, the mean over seeds with a band of one deviation.

    Args:
        rows: of the comparison.
        root: folder that their run folders are relative to. A curve whose `metrics.csv` is missing is left out.
        palette: with all regimes of the rows.

    Returns:
        One panel per network, recipe and use of a teacher, at the smallest budget that all share, with full data beside
        it; None where no curve is there.
    """
    folders = {row.cell: root / row.train_folder for row in rows}
    budget = common_budget({cell._replace(seed=0) for cell in folders})
    curves = _curves({cell: folder for cell, folder in folders.items() if cell.budget in (None, budget)})
    if not curves:
        return None
    compared = [line for line in curves if not is_reference(line, palette.reference)]
    panels = list(dict.fromkeys(panel_of(line) for line in compared or curves))
    figure, axes = small_multiples(panels)
    traces = {panel: _draw_panel(axes[panel], panel, curves, palette) for panel in panels}
    scale_psnr(axes, traces, palette)
    label_left(axes, "validation PSNR-Y [dB]")
    legend(figure, regime_handles(palette, (line.regime for line in curves), marker=False))
    at = "" if budget is None else f", with {format_percent(budget)} of the data"
    figure.supxlabel(f"optimiser steps{at}", fontsize=10)
    return figure


def read_log(path: Path) -> Log:
    """Validation PSNR by step from the file of Lightning's CSVLogger; of a step validated twice, the later value.

    Args:
        path: of `metrics.csv`; nothing comes of one that is missing.
    """
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        values = {int(line["step"]): float(line[METRIC]) for line in csv.DictReader(file) if line.get(METRIC)}
    return {step: value for step, value in values.items() if math.isfinite(value)}


def _curves(folders: Mapping[Cell, Path]) -> dict[Cell, Curve]:
    """Curves by training, with 0 for its seed, over the steps at which all seeds were validated."""
    logs: dict[Cell, list[Log]] = {}
    for cell, folder in folders.items():
        log = read_log(folder / "metrics.csv")
        if log:
            logs.setdefault(cell._replace(seed=0), []).append(log)
    curves = {line: _average(seeds) for line, seeds in logs.items()}
    return {line: curve for line, curve in curves.items() if len(curve.steps)}


def _average(logs: Sequence[Log]) -> Curve:
    steps = sorted(set(logs[0]).intersection(*logs))
    values = np.array([[log[step] for step in steps] for log in logs])
    std = values.std(0, ddof=1) if len(logs) > 1 else np.zeros(len(steps))
    return Curve(np.array(steps, dtype=float), values.mean(0), std)


def _draw_panel(axes: Axes, panel: Panel, curves: Mapping[Cell, Curve], palette: Palette) -> list[Trace]:
    """Draws the curves of a panel and that of full data; returns what of them has to be on the axis."""
    full = Cell(palette.reference, False, panel.recipe, panel.network, None, 0)
    lines = {line: curve for line, curve in curves.items() if line == full or panel_of(line) == panel}
    for line in sorted(lines, key=lambda line: palette.names.index(line.regime)):
        _draw(axes, lines[line], palette[line.regime])
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    return [_settled(line.regime, curve) for line, curve in lines.items()]


def _draw(axes: Axes, curve: Curve, look: Look) -> None:
    marker = look.marker if len(curve.steps) == 1 else ""  # a single point is no line
    axes.plot(curve.steps, curve.mean, color=look.colour, ls=look.dashes, marker=marker)
    axes.fill_between(curve.steps, curve.mean - curve.std, curve.mean + curve.std, color=look.colour, alpha=_BAND, lw=0)
    axes.grid(axis="y")


def _settled(regime: str, curve: Curve) -> Trace:
    """What follows the first steep climb: never the first of several values."""
    steps = curve.steps
    late = (steps >= _SETTLED * steps[-1]) & ((steps > steps[0]) | (len(steps) == 1))
    return Trace(regime, *(values[late] for values in curve))
