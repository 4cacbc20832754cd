"""The plots of the report: what each is called and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from markupsafe import Markup


class Figure(NamedTuple):
    """One plot on the page.

    Attributes:
        name: of the plot, used as its address on the page.
        title: of the figure.
        caption: one sentence that says how to read it.
        svg: the plot.
    """

    name: str
    title: str
    caption: str
    svg: Markup


CAPTIONS: dict[str, tuple[str, str]] = {
    "psnr_against_budget": (
        "Quality against budget",
        "Further left is less data, higher is better: a regime is worth its effort where it lies above the baseline.",
    ),
    "psnr_against_time": (
        "Quality against total time",
        "Time is distillation and training together, so the best trade is at the top left.",
    ),
    "cost_bars": (
        "Where the time goes",
        "A bar is the time of one training, split into making the data and training on them; shorter is cheaper.",
    ),
    "cross_architecture": (
        "Across networks",
        "Each field is the gap to full data in dB, red is worse: data that suit one network only have an uneven row.",
    ),
    "learning_curves": (
        "Learning curves",
        "PSNR-Y on validation images while training: a curve that turns down has begun to learn its patches by heart.",
    ),
    "spectra": (
        "Spectra of the training data",
        "Power at each spatial frequency: a curve below the others at the right belongs to data that lack fine detail.",
    ),
}
"""Title and caption of each plot, in the order of the page."""


def figures(plots: Mapping[str, str]) -> list[Figure]:
    """The plots in the order of the page; those that were not made are left out.

    Raises:
        ValueError: for a plot without a caption.
    """
    unknown = sorted(set(plots) - set(CAPTIONS))
    if unknown:
        raise ValueError(
            f"plot {unknown[0]!r} has no caption, expected one of {', '.join(CAPTIONS)}; add it to CAPTIONS"
        )
    return [Figure(name, *CAPTIONS[name], Markup(plots[name])) for name in CAPTIONS if name in plots]  # noqa: S704 (ours)
