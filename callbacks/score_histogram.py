"""Where in the distribution of all scores the chosen patches lie."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from datamodules.selection.interfaces import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 60
ALL, KEPT, CHOSEN = "#d9d9d9", "#56b4e9", "#d55e00"
"""Grey, sky blue and vermillion of M. Okabe and K. Ito's palette, which the colour-blind can tell apart."""


def score_histogram(candidates: Floats, kept: Floats, chosen: Floats, title: Sequence[str], label: str) -> Image.Image:
    """All candidates, the part of them that filters left, and the chosen: each of these a tick on the axis, too.

    The few most extreme candidates, one in a thousand at either end, count in the outermost bin: they would squeeze all
    others together.

    Args:
        candidates: scores of all candidates, (N,).
        kept: of those that filters left.
        chosen: of the chosen ones.
        title: lines above the plot; long ones are broken.
        label: of the score's axis, with its unit.

    Returns:
        RGB, 1350 x 675 pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=label, ylabel="share in each bin [%]")
    figure.suptitle("\n".join(textwrap.fill(line, 100) for line in title), fontsize="medium", x=0.02, ha="left")
    bins = _bins(candidates, chosen)
    _bars(axes, candidates, len(candidates), bins, label=f"candidates: {len(candidates):,}", color=ALL)
    if len(kept) < len(candidates):
        _bars(axes, kept, len(candidates), bins, label=f"left by the filters: {len(kept):,}", color=KEPT)
    first, last = np.searchsorted(bins, [chosen.min(), chosen.max()])
    around = bins[max(first - 1, 0) : max(last, 1) + 1]
    _bars(axes, chosen, len(chosen), around, label=f"chosen: {len(chosen):,}", color=CHOSEN, histtype="step", lw=2)
    axes.plot(chosen, np.zeros(len(chosen)), "|", color=CHOSEN, ms=8, mew=0.8, clip_on=False)
    _mark_quantiles(axes, candidates)
    axes.legend(frameon=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _bins(candidates: Floats, chosen: Floats) -> list[float]:
    low, high = np.quantile(candidates, [0.001, 0.999])
    extent = (min(low, chosen.min()), max(high, chosen.max()))
    edges: list[float] = np.histogram_bin_edges(chosen, BINS, extent).tolist()
    return edges


def _bars(axes: Axes, scores: Floats, whole: int, bins: list[float], **style: Any) -> None:
    axes.hist(scores.clip(bins[0], bins[-1]), bins, weights=np.full(len(scores), 100 / whole), **style)


def _mark_quantiles(axes: Axes, scores: Floats) -> None:
    """Ticks above the plot: filters speak of percentages."""
    places = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}
    top = axes.secondary_xaxis("top")
    top.set_xticks(np.quantile(scores, list(places.values())), labels=list(places), fontsize="small", color="dimgray")
    top.spines["top"].set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
