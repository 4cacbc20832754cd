"""How sure a difference between two regimes is: bootstrap intervals over paired test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from comparison.results.rows import MEAN, Cell, ImageRow

BOUNDS = (0.025, 0.975)
"""Quantiles that bound a 95 % interval."""


class Intervals:
    """Intervals of paired differences by the percentile bootstrap (Efron and Tibshirani, 1993, chapter 13).

    Test images are drawn with replacement within each set, and the means of the sets are averaged, so that the interval
    is of the same quantity as the gain. It tells how far the choice of test images matters, and nothing of how far
    seeds differ. All calls share the draws, which are made once for each set.

    Args:
        per_image: PSNR of single images.
        sets: that `MEAN` is over.
        resamples: number of draws.
    """

    def __init__(self, per_image: Sequence[ImageRow], sets: Sequence[str], resamples: int) -> None:
        self._sets = sets
        self._resamples = resamples
        self._weights: dict[tuple[str, int], np.ndarray] = {}
        images: dict[tuple[Cell, str], dict[str, float]] = {}
        for row in per_image:
            images.setdefault((row.cell, row.set), {})[row.image] = row.psnr_y
        self._images = {key: dict(sorted(psnr.items())) for key, psnr in images.items()}

    def __call__(self, pairs: Sequence[tuple[Cell, Cell]], name: str) -> tuple[float, float] | None:
        """The interval of the mean of first minus second over `pairs`, on the test set `name` or `MEAN`, in dB."""
        means = [self._means(pairs, each) for each in (self._sets if name == MEAN else [name])]
        known = [each for each in means if each is not None]
        if len(known) < len(means):
            return None
        low, high = np.quantile(np.mean(known, axis=0), BOUNDS)
        return float(low), float(high)

    def _means(self, pairs: Sequence[tuple[Cell, Cell]], name: str) -> np.ndarray | None:
        """Mean difference over each draw of images (resamples,), or None where it cannot be told."""
        found = [self._images.get((cell, name), {}) for pair in pairs for cell in pair]
        count = len(found[0])
        if count < 2 or len({tuple(psnr) for psnr in found}) > 1:
            return None
        psnr = np.array([list(psnr.values()) for psnr in found]).reshape(len(pairs), 2, count)
        return self._drawn(name, count) @ (psnr[:, 0] - psnr[:, 1]).mean(axis=0)

    def _drawn(self, name: str, count: int) -> np.ndarray:
        """Weight of each image in each draw (resamples, count); seeded by the set's name: sets are independent."""
        if (name, count) not in self._weights:
            generator = np.random.default_rng(list(name.encode()))
            draws = generator.multinomial(count, np.full(count, 1 / count), size=self._resamples)
            self._weights[name, count] = draws / count
        return self._weights[name, count]
