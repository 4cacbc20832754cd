"""All plots of a comparison at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comparison.plots.architectures import cross_architecture
from comparison.plots.cost import cost_bars
from comparison.plots.learning import learning_curves
from comparison.plots.quality import psnr_against_budget, psnr_against_time
from comparison.plots.spectral import spectra_plot
from comparison.plots.style import Palette
from comparison.results.rows import Row
from comparison.results.statistics import Summary
from datamodules.spectra import Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "psnr_against_budget": "PSNR-Y against budget",
    "psnr_against_time": "PSNR-Y against time",
    "cost_bars": "Time of distillation and training",
    "cross_architecture": "Gap to full data across networks",
    "learning_curves": "Learning curves",
    "spectra": "Power spectra",
}
"""Label of each figure, by name."""


def draw_all(
    summaries: Sequence[Summary],
    rows: Sequence[Row],
    root: Path,
    spectra: Mapping[str, Spectrum],
    reference: str = "full",
    baseline: str = "random",
) -> dict[str, Figure]:
    """Every plot that has something to show, with one look for each regime in all of them.

    Args:
        summaries: lines of the main table.
        rows: of the comparison.
        root: folder that the rows' run folders are relative to.
        spectra: of the training data, by regime.
        reference: regime of the full data.
        baseline: regime that the others are compared with.

    Returns:
        Figures by name, in the order of `TITLES`, which are their labels.
    """
    regimes = [line.group.regime for line in summaries] + [row.cell.regime for row in rows] + list(spectra)
    palette = Palette(regimes, reference, baseline)
    figures = {
        "psnr_against_budget": psnr_against_budget(summaries, palette),
        "psnr_against_time": psnr_against_time(summaries, palette),
        "cost_bars": cost_bars(summaries, palette),
        "cross_architecture": cross_architecture(summaries, palette),
        "learning_curves": learning_curves(rows, root, palette),
        "spectra": spectra_plot(spectra, palette),
    }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    for name, figure in drawn.items():
        figure.set_label(TITLES[name])
        figure.draw_without_rendering()  # lays it out once: each further time would move things by a rounding error
        figure.set_layout_engine("none")
    return drawn
