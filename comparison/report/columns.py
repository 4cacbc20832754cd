"""The columns of the main table: what they show, how they sort, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from comparison.results.formatting import (
    MISSING,
    format_bytes,
    format_gain,
    format_percent,
    format_psnr,
    format_seconds,
    format_signed,
    format_ssim,
)
from comparison.results.statistics import Group, Summary
from comparison.results.untrained import wording

Direction = Literal["ascending", "descending"]

NAMES = ("regime", "network", "recipe", "set")
"""Columns of words, which sort by alphabet."""

EVERYTHING = 100.0
"""Percent that a regime without a budget sorts by."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: its class in the page.
        title: in the head of the table; `{reference}` and `{baseline}` stand for the names of these regimes.
        meaning: for the section on methods, likewise; `{untrained}` and so on are words of `Wording`.
        value: what it sorts by; None sorts last.
        text: what it shows.
        first: direction of the first click: the best on top.
    """

    key: str
    title: str
    meaning: str
    value: Callable[[Summary], float | str | None]
    text: Callable[[Summary], str]
    first: Direction = "ascending"

    @property
    def numeric(self) -> bool:
        """Whether it holds figures, not names."""
        return self.key not in NAMES


def columns(summaries: Sequence[Summary], reference: str, baseline: str) -> list[Column]:
    """Those that have something to say about these lines.

    Args:
        summaries: lines of all tables.
        reference: regime that gaps are counted from.
        baseline: regime that gains are counted from.
    """
    empty = {
        "psnr-rgb": all(line.psnr_rgb is None for line in summaries),
        "lpips": all(line.lpips is None for line in summaries),
        "gap-best": all(line.gap_to_best_full == line.gap_to_full for line in summaries),
    }
    words = wording(summaries)
    names = {"reference": reference, "baseline": baseline, "training": words.training}
    names |= {"untrained": words.phrase, "untrained_short": words.short}
    return [
        replace(column, title=column.title.format(**names), meaning=column.meaning.format(**names))
        for column in _COLUMNS
        if not empty.get(column.key)
    ]


def percent(group: Group) -> float:
    """What a line sorts by among budgets."""
    return EVERYTHING if group.budget is None else group.budget


_COLUMNS = (
    Column(
        "regime",
        "Regime",
        "How the training data were made.",
        lambda line: line.group.regime,
        lambda line: line.group.regime,
    ),
    Column(
        "budget",
        "Budget",
        "Pixels that the plan allows for training, in percent of the full set's; “all” is the full set.",
        lambda line: percent(line.group),
        lambda line: "all" if line.group.budget is None else format_percent(line.group.budget),
    ),
    Column(
        "network",
        "Network",
        "What was trained.",
        lambda line: line.group.network,
        lambda line: line.group.network,
    ),
    Column(
        "recipe",
        "Recipe",
        "How it was trained; the same for every regime.",
        lambda line: line.group.recipe,
        lambda line: line.group.recipe,
    ),
    Column(
        "set",
        "Test set",
        "“mean” is the mean over the test sets, each counted alike.",
        lambda line: line.group.set,
        lambda line: line.group.set,
    ),
    Column(
        "psnr",
        "PSNR-Y, dB",
        "Mean over the images of a test set, then over seeds, ± the sample standard deviation over seeds (none for a "
        "single seed). Higher is better.",
        lambda line: line.psnr_y,
        lambda line: format_psnr(line.psnr_y, line.psnr_y_std),
        "descending",
    ),
    Column(
        "gain",
        "Gain over {baseline}, dB",
        "PSNR-Y minus that of {baseline} at the same budget, network, recipe and use of a teacher, over the seeds that "
        "both have. In brackets the 95 % interval of a bootstrap that redraws the images of each test set, the same "
        "for both: it tells how much the gain depends on the choice of test images, and nothing of how far seeds "
        "differ. A gain whose interval holds 0 is printed in grey: the two may as well be equal.",
        lambda line: line.gain_over_random,
        lambda line: format_gain(line.gain_over_random, line.gain_interval),
        "descending",
    ),
    Column(
        "gap",
        "Gap to {reference}, dB",
        "PSNR-Y minus that of {reference} with the same network and recipe, without a teacher.",
        lambda line: line.gap_to_full,
        lambda line: format_signed(line.gap_to_full),
        "descending",
    ),
    Column(
        "gap-best",
        "Gap to best {reference}, dB",
        "The same against {reference} with whichever recipe is best for it.",
        lambda line: line.gap_to_best_full,
        lambda line: format_signed(line.gap_to_best_full),
        "descending",
    ),
    Column(
        "kept",
        "Kept",
        "Share of what {reference} gains over {untrained} that is left: PSNR-Y minus {untrained_short}, divided by "
        "{reference} minus {untrained_short}, with the same network and recipe.",
        lambda line: line.kept,
        lambda line: MISSING if line.kept is None else format_percent(100 * line.kept),
        "descending",
    ),
    Column(
        "ssim",
        "SSIM-Y",
        "Averaged as PSNR-Y; 1 is a perfect copy.",
        lambda line: line.ssim_y,
        lambda line: format_ssim(line.ssim_y, line.ssim_y_std),
        "descending",
    ),
    Column(
        "psnr-rgb",
        "PSNR-RGB, dB",
        "PSNR over the three colours, averaged as PSNR-Y.",
        lambda line: line.psnr_rgb,
        lambda line: format_psnr(line.psnr_rgb),
        "descending",
    ),
    Column(
        "lpips",
        "LPIPS",
        "Perceptual distance, averaged as PSNR-Y; lower is better.",
        lambda line: line.lpips,
        lambda line: MISSING if line.lpips is None else f"{line.lpips:.4f}",
    ),
    Column(
        "total",
        "Total time",
        "Distillation and training.",
        lambda line: line.total_seconds,
        lambda line: format_seconds(line.total_seconds),
    ),
    Column(
        "distillation",
        "Distillation",
        "Time of all stages before the {training}, each counted in whole even if several trainings share it; the "
        "training of a teacher too. Mean over seeds.",
        lambda line: line.distillation_seconds,
        lambda line: format_seconds(line.distillation_seconds),
    ),
    Column(
        "training",
        "Training",
        "Time of the {training} with waiting for data, without validation. Mean over seeds.",
        lambda line: line.training_seconds,
        lambda line: format_seconds(line.training_seconds),
    ),
    Column(
        "images",
        "Images",
        "Patches, or photographs where the regime trains on photographs as they are. Mean over seeds.",
        lambda line: line.images,
        lambda line: f"{line.images:,.0f}",
    ),
    Column(
        "size",
        "Size",
        "Of the images as files.",
        lambda line: line.bytes,
        lambda line: format_bytes(line.bytes),
    ),
    Column(
        "percent",
        "Pixels",
        "What was trained on, in percent of the full set's pixels.",
        lambda line: line.percent,
        lambda line: format_percent(line.percent),
    ),
    Column(
        "memory",
        "Peak memory",
        "Largest resident memory of any of these stages and seeds.",
        lambda line: line.peak_memory_mib,
        lambda line: f"{line.peak_memory_mib:,.0f} MiB",
    ),
    Column(
        "updates",
        "Updates",
        "Optimiser steps of the {training}.",
        lambda line: line.updates,
        lambda line: f"{line.updates:,}",
    ),
    Column(
        "seeds",
        "Seeds",
        "Number of trainings that the line is the mean of.",
        lambda line: line.seeds,
        lambda line: str(line.seeds),
    ),
)
