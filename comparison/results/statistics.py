"""What a reader asks of the rows: means, gaps, gains and how sure they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from comparison.results.intervals import Intervals
from comparison.results.rows import MEAN, Cell, ImageRow, Row
from comparison.results.untrained import Untrained


class Group(NamedTuple):
    """What the seeds of one line of the table have in common; see `Cell`.

    Attributes:
        regime: how the data were made.
        teacher: whether a trained network had a part in them.
        recipe: of the training.
        network: what was trained.
        budget: in percent as planned, or None.
        set: test set, or `MEAN`, the mean over the test sets.
    """

    regime: str
    teacher: bool
    recipe: str
    network: str
    budget: float | None
    set: str


@dataclass(frozen=True)
class Summary:
    """One line of the main table.

    Attributes:
        group: what the line is about.
        seeds: how many it is the mean of.
        test_images: in the set; of all sets together for `MEAN`.
        psnr_y: mean over seeds, in dB.
        psnr_y_std: sample standard deviation over seeds (n - 1); None for one seed.
        ssim_y: mean over seeds.
        ssim_y_std: as for PSNR.
        psnr_rgb: mean over seeds, in dB; None where it was not measured.
        lpips: mean over seeds; None where it was not measured.
        psnr_y_untrained: of what one has without a network.
        ssim_y_untrained: likewise.
        untrained: what that is, see `Row`.
        gap_to_full: PSNR minus that of full data with the same network and recipe, no teacher; None where there is
            none.
        gap_to_best_full: PSNR minus that of full data with the same network and whichever recipe is best for it.
        gain_over_random: PSNR minus that of the baseline at the same budget, network, recipe and use of a teacher, over
            the seeds that both have; None where there is no such baseline, and for the baseline itself.
        gain_interval: 95 % interval of that gain, by a bootstrap over the paired test images; None likewise, where a
            set has a single image, and where images were not recorded for both.
        kept: (PSNR - untrained) / (full data - untrained), full data as in `gap_to_full`; None where there is none, and
            where full data gain nothing over that.
        images: trained on, mean over seeds.
        bytes: of these.
        percent: of the full set's pixels.
        distillation_seconds: mean over seeds.
        training_seconds: mean over seeds.
        peak_memory_mib: largest of all seeds.
        updates: optimiser steps.
    """

    group: Group
    seeds: int
    test_images: int
    psnr_y: float
    psnr_y_std: float | None
    ssim_y: float
    ssim_y_std: float | None
    psnr_rgb: float | None
    lpips: float | None
    psnr_y_untrained: float
    ssim_y_untrained: float
    untrained: Untrained
    gap_to_full: float | None
    gap_to_best_full: float | None
    gain_over_random: float | None
    gain_interval: tuple[float, float] | None
    kept: float | None
    images: float
    bytes: float
    percent: float
    distillation_seconds: float
    training_seconds: float
    peak_memory_mib: float
    updates: int

    @property
    def total_seconds(self) -> float:
        """Distillation and training."""
        return self.distillation_seconds + self.training_seconds


Samples = dict[Group, dict[int, Row]]
"""The rows of each line of the table, by seed."""


def summarise(
    rows: Sequence[Row], per_image: Sequence[ImageRow], reference: str, baseline: str, bootstrap: int = 10_000
) -> list[Summary]:
    """The lines of the main table.

    Trainings and tests may be missing, as after a failed stage: a line is the mean of the seeds that are there, and a
    seed counts in the mean over the test sets only where it has been tested on all sets that occur in `rows`.

    Args:
        rows: of the whole comparison; with one cell and set twice, the later one counts.
        per_image: PSNR of single images, for the intervals.
        reference: regime of the full data; its lines without a teacher and without a budget are compared with.
        baseline: regime that each other one is compared with at the same budget.
        bootstrap: how often the test images are drawn anew.

    Returns:
        One line per regime, teacher, recipe, network, budget and set, in the order of the rows, each training's `MEAN`
        after its sets.
    """
    samples = _samples(rows)
    intervals = Intervals(per_image, list(dict.fromkeys(row.set for row in rows)), bootstrap)
    full = {
        group: _mean(row.psnr_y for row in seeds.values())
        for group, seeds in samples.items()
        if group.regime == reference and group.budget is None
    }
    lines = []
    for group, seeds in samples.items():
        line = _against_full(_line(group, seeds), full, reference)
        others = {} if group.regime == baseline else samples.get(group._replace(regime=baseline), {})
        lines.append(_against_baseline(line, seeds, others, intervals))
    return lines


def _samples(rows: Sequence[Row]) -> Samples:
    trainings: dict[Cell, dict[str, Row]] = {}
    for row in rows:
        trainings.setdefault(row.cell, {})[row.set] = row
    sets = dict.fromkeys(row.set for row in rows)
    lines: dict[Group, dict[str, dict[int, Row]]] = {}
    for cell, tests in trainings.items():
        line = lines.setdefault(Group(*cell[:-1], set=""), {name: {} for name in [*sets, MEAN]})
        for name, row in tests.items():
            line[name][cell.seed] = row
        if len(tests) == len(sets):
            line[MEAN][cell.seed] = _mean_row([tests[name] for name in sets])
    return {key._replace(set=name): seeds for key, line in lines.items() for name, seeds in line.items() if seeds}


def _mean_row(tests: Sequence[Row]) -> Row:
    """One training over all test sets, each set with the same weight; what it cost is the same in all."""
    return replace(
        tests[0],
        set=MEAN,
        psnr_y=_mean(row.psnr_y for row in tests),
        ssim_y=_mean(row.ssim_y for row in tests),
        psnr_y_untrained=_mean(row.psnr_y_untrained for row in tests),
        ssim_y_untrained=_mean(row.ssim_y_untrained for row in tests),
        psnr_rgb=_mean_or_none([row.psnr_rgb for row in tests]),
        lpips=_mean_or_none([row.lpips for row in tests]),
        test_images=sum(row.test_images for row in tests),
    )


def _line(group: Group, seeds: dict[int, Row]) -> Summary:
    rows = list(seeds.values())
    return Summary(
        group=group,
        seeds=len(rows),
        test_images=rows[0].test_images,
        psnr_y=_mean(row.psnr_y for row in rows),
        psnr_y_std=_deviation([row.psnr_y for row in rows]),
        ssim_y=_mean(row.ssim_y for row in rows),
        ssim_y_std=_deviation([row.ssim_y for row in rows]),
        psnr_rgb=_mean_or_none([row.psnr_rgb for row in rows]),
        lpips=_mean_or_none([row.lpips for row in rows]),
        psnr_y_untrained=_mean(row.psnr_y_untrained for row in rows),
        ssim_y_untrained=_mean(row.ssim_y_untrained for row in rows),
        untrained=rows[0].untrained,
        gap_to_full=None,
        gap_to_best_full=None,
        gain_over_random=None,
        gain_interval=None,
        kept=None,
        images=_mean(row.images for row in rows),
        bytes=_mean(row.bytes for row in rows),
        percent=_mean(row.percent for row in rows),
        distillation_seconds=_mean(row.distillation_seconds for row in rows),
        training_seconds=_mean(row.training_seconds for row in rows),
        peak_memory_mib=max(row.peak_memory_mib for row in rows),
        updates=rows[0].updates,
    )


def _against_full(line: Summary, full: dict[Group, float], reference: str) -> Summary:
    same = line.group._replace(regime=reference, teacher=False, budget=None)
    recipes = [psnr for group, psnr in full.items() if group._replace(recipe=same.recipe) == same]
    if same in full:
        gap, gained = line.psnr_y - full[same], full[same] - line.psnr_y_untrained
        kept = (line.psnr_y - line.psnr_y_untrained) / gained if gained > 0 else None
        line = replace(line, gap_to_full=gap, kept=kept)
    return replace(line, gap_to_best_full=line.psnr_y - max(recipes)) if recipes else line


def _against_baseline(line: Summary, ours: dict[int, Row], theirs: dict[int, Row], intervals: Intervals) -> Summary:
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    if not pairs:
        return line
    gain = _mean(one.psnr_y - other.psnr_y for one, other in pairs)
    interval = intervals([(one.cell, other.cell) for one, other in pairs], line.group.set)
    return replace(line, gain_over_random=gain, gain_interval=interval)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
