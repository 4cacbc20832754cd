"""Selectors that build a subset in feature space step by step; each step costs one pass over the features.

Both work on standardised features (`Standardised`), need O(N D) time per patch chosen and O(N) memory.
"""

from __future__ import annotations

import numpy as np

from datamodules.selection.interfaces import Indices, Pool, Selector
from datamodules.selection.selectors.draws import random_order
from datamodules.selection.selectors.vectors import Standardised, first_minimum


class KCentre(Selector):
    """Farthest first: each patch is the one farthest from all chosen before, from a random first one.

    It covers the feature space within twice the least possible radius (Gonzalez, Theoretical Computer Science 38,
    1985; as active learning: Sener and Savarese, ICLR 2018, arXiv 1708.00489), outliers first.
    """

    needs_features = True

    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """See `Selector.select`."""
        assert pool.features is not None
        points = Standardised(pool.features)
        norms = points.squared_norms()
        chosen = random_order(seed, "KCentre", pool)[:count]
        nearest = np.full(len(pool), np.inf)
        for step in range(1, count):
            last = chosen[step - 1 : step]
            squared = norms + norms[last] - 2 * points.products(points.rows(last)[0])
            np.minimum(nearest, squared, out=nearest)
            nearest[last] = -np.inf  # never again, though its duplicates, at distance 0, may come last
            chosen[step] = first_minimum(-nearest)
        return chosen


class Herding(Selector):
    """Each patch is the one that brings the mean of the chosen nearest to the pool's mean; the seed decides nothing.

    Welling, "Herding dynamical weights to learn", ICML 2009, as in iCaRL (Rebuffi et al., CVPR 2017, arXiv
    1611.07725, algorithm 4).
    """

    needs_features = True

    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """See `Selector.select`."""
        assert pool.features is not None
        points = Standardised(pool.features)
        chosen = np.empty(count, dtype=np.int64)
        cost = points.squared_norms()
        total = np.zeros(pool.features.shape[1])
        for step in range(count):
            # The pool's mean is 0: |total + x|^2, but for its constant part, is to be least.
            chosen[step] = first_minimum(cost + 2 * points.products(total))
            cost[chosen[step]] = np.inf
            total += points.rows(chosen[step : step + 1])[0]
        return chosen
