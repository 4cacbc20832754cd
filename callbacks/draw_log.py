"""What a curriculum has drawn, as a histogram over time: in memory, as a table and as a picture."""

from __future__ import annotations

import csv
import io
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datamodules.selection.interfaces import Criterion, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 32
HEAD = ("from_step", "to_step", "stage", "samples", "mean")
_FIRST, _LAST, _STAGE, _SAMPLES, _MEAN = range(len(HEAD))


class DrawLog:
    """Counts drawn windows by their score, interval by interval; a new stage begins a new interval.

    Args:
        scores: of all windows, (W,), in the criterion's unit.
        areas: of all windows in pixels, (W,).
        every: optimiser steps in an interval.
    """

    def __init__(self, scores: Floats, areas: Floats, every: int) -> None:
        self.edges = np.histogram_bin_edges(scores, BINS)
        self.everything, _ = np.histogram(scores, self.edges, weights=areas)
        self._scores = np.asarray(scores)
        self._bins = np.searchsorted(self.edges[1:-1], self._scores, "right")
        self._every = every
        self._rows: list[Floats] = []
        self._unread: list[float] = [0.0, 0.0]  # sum of scores, samples

    def add(self, windows: Tensor, step: int, stage: int) -> bool:
        """Counts what one batch was cut from.

        Args:
            windows: numbers, int64 (B,).
            step: the optimiser step that the batch is part of, from 1.
            stage: 1 or 2.

        Returns:
            Whether an interval has ended before this batch.
        """
        drawn = windows.numpy()
        ended = bool(self._rows) and not self._belongs(step, stage)
        if ended or not self._rows:
            self._rows.append(np.array([step, step, stage, 0, 0, *[0] * BINS], dtype=np.float64))
        row, total = self._rows[-1], float(self._scores[drawn].sum())
        row[_LAST] = step
        row[_MEAN] = (row[_MEAN] * row[_SAMPLES] + total) / (row[_SAMPLES] + len(drawn))
        row[_SAMPLES] += len(drawn)
        row[len(HEAD) :] += np.bincount(self._bins[drawn], minlength=BINS)
        self._unread = [self._unread[0] + total, self._unread[1] + len(drawn)]
        return ended

    def read_mean(self) -> float:
        """Mean score of what was drawn since this was last read; NaN for nothing."""
        total, samples = self._unread
        self._unread = [0.0, 0.0]
        return total / samples if samples else math.nan

    @property
    def table(self) -> Floats:
        """An interval per row: first step, last step, stage, samples, their mean score, samples in each bin."""
        return np.stack(self._rows) if self._rows else np.empty((0, len(HEAD) + BINS))

    def csv(self) -> str:
        """The table with names of the columns; those of the bins are their borders."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        borders = [f"{edge:.6g}" for edge in self.edges]
        writer.writerow([*HEAD, *(f"{low}..{high}" for low, high in itertools.pairwise(borders))])
        for row in self.table:
            writer.writerow(f"{value:.6g}" if place == _MEAN else int(value) for place, value in enumerate(row))
        return text.getvalue()

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far."""
        return {"table": torch.from_numpy(self.table), "unread": list(self._unread)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on counting."""
        self._rows = list(state["table"].numpy().copy())
        self._unread = list(state["unread"])

    def _belongs(self, step: int, stage: int) -> bool:
        row = self._rows[-1]
        return bool(row[_STAGE] == stage and (step - 1) // self._every == (row[_FIRST] - 1) // self._every)


def draw_map(log: DrawLog, criterion: Criterion, title: str) -> Image.Image:
    """The table as a heat map over steps and scores, complex windows at the top, beside the scores of all windows.

    Args:
        log: with at least one interval.
        criterion: that the scores are of.
        title: of the picture.

    Returns:
        RGB, 1350 x 675 pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[5, 1])
    figure.suptitle(title, fontsize="medium", x=0.02, ha="left")
    _heat_map(left, log)
    middles = (log.edges[:-1] + log.edges[1:]) / 2
    right.barh(middles, _percent(log.everything), np.diff(log.edges), color="#999999")
    left.set(xlabel="optimiser step", ylabel=criterion.label)
    right.set(xlabel="all windows [%]")
    right.spines[["top", "right"]].set_visible(False)
    if criterion.complex_when == "low":
        left.invert_yaxis()
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _heat_map(axes: Axes, log: DrawLog) -> None:
    table = log.table
    steps = np.concatenate([[table[0, _FIRST] - 1], table[:, _LAST]])
    shares = np.stack([_percent(row) for row in table[:, len(HEAD) :]], axis=1)
    mesh = axes.pcolormesh(steps, log.edges, shares, cmap="cividis", vmin=0)
    axes.figure.colorbar(mesh, ax=axes, label="share of what was drawn [%]")
    axes.stairs(table[:, _MEAN], steps, baseline=None, color="white", lw=3)
    axes.stairs(table[:, _MEAN], steps, baseline=None, color="#d55e00", lw=1.5, label="mean of what was drawn")
    later = table[:, _STAGE] == 2
    if later.any() and not later.all():
        switch = steps[int(later.argmax())]
        axes.axvline(switch, color="white", ls="--", label=f"stage two, after step {switch:.0f}")
    axes.legend(loc="lower right", fontsize="small")


def _percent(counts: NDArray[Any]) -> Floats:
    shares: Floats = 100 * counts / counts.sum()
    return shares
