"""Selectors that need no features: at random, an end of the scores, or evenly over them."""

from __future__ import annotations

import numpy as np

from datamodules.selection.interfaces import Indices, Pool, Selector
from datamodules.selection.selectors.draws import random_numbers, random_order


class Random(Selector):
    """Candidates at random: the baseline that every rule must beat."""

    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """See `Selector.select`."""
        return random_order(seed, "Random", pool)[:count]


class Lowest(Selector):
    """The lowest scores, in ascending order; equal ones by position. The seed decides nothing."""

    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """See `Selector.select`."""
        return np.argsort(pool.scores, kind="stable")[:count]


class Highest(Selector):
    """The highest scores, in descending order; equal ones by position. The seed decides nothing."""

    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """See `Selector.select`."""
        return np.argsort(-pool.scores, kind="stable")[:count]


class Stratified(Selector):
    """One candidate at random of each quantile of the score, so that the scores are spread like the pool's.

    The sorted candidates are cut in as many equal runs as patches are wanted (stratified sampling); in ascending order
    of the score.
    """

    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """See `Selector.select`."""
        edges = np.arange(count + 1, dtype=np.int64) * len(pool) // count
        within = random_numbers(seed, "Stratified", np.arange(count, dtype=np.int64)) * np.diff(edges)
        return np.argsort(pool.scores, kind="stable")[edges[:-1] + within.astype(np.int64)]
