"""Distribution-matching selection: the subset whose distribution is closest to the pool's, or to a reference's."""

from __future__ import annotations

import numpy as np

from datamodules.selection.interfaces import Floats, Indices, Pool, Selector, Vectors
from datamodules.selection.selectors.draws import random_order
from datamodules.selection.selectors.vectors import TOLERANCE, Standardised, first_minimum

REFERENCES = 16384
"""Patches that stand for what is matched at least, where it has more; always four times those chosen."""
COLUMNS = 8192
"""Candidates whose distances are computed at a time, for the processor's cache."""


class DistributionMatching(Selector):
    """The subset S with the least energy distance to P, over features and score together.

    P is `Pool.reference`, such as the real patches that generated ones should resemble, or else the pool itself.

    The energy distance 2 E|s - p| - E|s - s'| - E|p - p'| of two distributions is zero only when they are equal
    (Szekely and Rizzo, Journal of Statistical Planning and Inference 143, 2013); point sets that minimise it are the
    support points of Mak and Joseph, Annals of Statistics 46, 2018. Herding matches the mean alone, and k-centre the
    extent; this matches mean, spread and shape. It needs no kernel width.

    A patch is a point: the leading principal components of its standardised features, scaled together to variance 1,
    and the rank of its score, scaled to variance `score_weight`^2 (ranks, so that a few extreme scores do not outweigh
    the many common ones). Means, deviations, components and ranks are those of P: what scores below or above all of P
    ranks as its lowest or highest. The first patch is random, each next one lowers the distance most; then sweeps
    exchange each for the candidate that lowers it most, until none does.

    Time is O(N (references + count (1 + 2 sweeps))) distances in `components` + 1 dimensions, memory O(N components).

    Args:
        score_weight: from 0; at 1 the score counts as much as all features together.
        components: principal components that are matched, at least 1; fewer are used where there are fewer.
        sweeps: most rounds of exchange, from 0.

    Raises:
        ValueError: when one of them is out of range.
    """

    needs_features = True
    matches_reference = True

    def __init__(self, score_weight: float = 1.0, components: int = 32, sweeps: int = 1) -> None:
        for key, value, least in (
            ("score_weight", score_weight, 0),
            ("components", components, 1),
            ("sweeps", sweeps, 0),
        ):
            if value < least:
                raise ValueError(f"DistributionMatching.{key} is {value}; expected at least {least}")
        self.score_weight = score_weight
        self.components = components
        self.sweeps = sweeps

    def select(self, pool: Pool, count: int, seed: int) -> Indices:
        """See `Selector.select`."""
        reference = pool if pool.reference is None else pool.reference
        space = _Space(reference, self.components, self.score_weight)
        points = space.points(pool)
        targets = points if reference is pool else space.points(reference)
        drawn = np.sort(random_order(seed, "DistributionMatching", reference)[: max(REFERENCES, 4 * count)])
        first = int(random_order(seed, "DistributionMatching", pool)[0])
        subset = _Subset(points, _mean_distances(points, targets[:, drawn]), first)
        subset.grow(count)
        for _ in range(self.sweeps):
            if not subset.exchange():
                break
        return np.array(subset.chosen, dtype=np.int64)


class _Space:
    """Where patches are points: axes and scales learned from a reference."""

    def __init__(self, reference: Pool, components: int, score_weight: float) -> None:
        assert reference.features is not None
        self._reference = reference
        self._features = reference.features
        self._vectors = Standardised(reference.features)
        self._axes = _leading_axes(self._vectors, components)
        self._score_weight = score_weight

    def points(self, pool: Pool) -> Floats:
        """Principal components and score of each patch of a pool, (at most `components` + 1, N)."""
        assert pool.features is not None
        own = pool is self._reference
        vectors = self._vectors if own else _StandardisedAs(pool.features, self._features)
        points = np.empty((self._axes.shape[1] + 1, len(pool)))
        for rows, block in vectors.blocks():
            points[:-1, rows] = (block @ self._axes).T
        points[-1] = self._score_weight * _ranks(pool.scores, self._reference.scores)
        return points


class _StandardisedAs(Standardised):
    """Features moved and scaled by the means and deviations of others."""

    def __init__(self, features: Vectors, others: Vectors) -> None:
        super().__init__(others)
        self._features = features


class _Subset:
    """A growing choice and, for every candidate, the sum of its distances to the chosen.

    Of the energy distance of `size` patches, the part that a candidate x decides is 2 / size^2 times its cost,
    size * (mean distance of x to P) - (sum of its distances to the others chosen).
    """

    def __init__(self, points: Floats, to_target: Floats, first: int) -> None:
        self._points = points
        self._to_target = to_target
        self._to_chosen = _distances(points, first)
        self.chosen = [first]

    def grow(self, size: int) -> None:
        """Adds the best candidate again and again."""
        while len(self.chosen) < size:
            best = first_minimum(self._costs(len(self.chosen) + 1))
            self._to_chosen += _distances(self._points, best)
            self.chosen.append(best)

    def exchange(self) -> bool:
        """Replaces each of the chosen by the best candidate, in the order chosen; whether any was."""
        size, exchanged = len(self.chosen), False
        for place, current in enumerate(self.chosen):
            self._to_chosen -= _distances(self._points, current)
            costs = self._costs(size)
            best = first_minimum(costs)
            own = size * self._to_target[current] - self._to_chosen[current]
            if costs[best] < own - TOLERANCE * max(1.0, abs(own)):
                self.chosen[place], exchanged = best, True
            self._to_chosen += _distances(self._points, self.chosen[place])
        return exchanged

    def _costs(self, size: int) -> Floats:
        costs = size * self._to_target - self._to_chosen
        costs[self.chosen] = np.inf
        return costs


def _leading_axes(vectors: Standardised, components: int) -> Floats:
    """Principal axes (D, at most `components`), scaled so that the components have variance 1 in all."""
    covariance = sum(block.T @ block for _, block in vectors.blocks()) / len(vectors)
    variances, axes = np.linalg.eigh(covariance)
    # Neither the signs of the axes nor their order matter to distances.
    total = variances[-components:].sum()
    return axes[:, -components:] / np.sqrt(total if total > 0 else 1)


def _ranks(scores: Floats, among: Floats) -> Floats:
    """Ranks of scores (N,) among some, equal ones alike; of these themselves mean 0 and, all different, variance 1."""
    ascending = np.sort(among)
    middle = (np.searchsorted(ascending, scores) + np.searchsorted(ascending, scores, side="right")) / 2
    return (middle / len(among) - 0.5) * np.sqrt(12)


def _distances(points: Floats, one: int) -> Floats:
    """Euclidean distance of each of the points (D, N) to one of them, (N,)."""
    distances = np.empty(points.shape[1])
    for start in range(0, len(distances), COLUMNS):
        columns = slice(start, start + COLUMNS)
        difference = points[:, columns] - points[:, one, None]
        np.sqrt(np.einsum("dn,dn->n", difference, difference), out=distances[columns])
    return distances


def _mean_distances(points: Floats, references: Floats) -> Floats:
    """Mean Euclidean distance of each of the points (D, N) to the references (D, R), (N,)."""
    norms, reference_norms = (np.einsum("dn,dn->n", x, x) for x in (points, references))
    means = np.empty(points.shape[1])
    step = max(1, (1 << 22) // references.shape[1])
    for start in range(0, len(means), step):
        columns = slice(start, start + step)
        squared = points[:, columns].T @ references
        squared *= -2
        squared += norms[columns, None]
        squared += reference_norms
        np.maximum(squared, 0, out=squared)  # rounding takes distances of equal points below 0
        means[columns] = np.sqrt(squared, out=squared).mean(axis=1)
    return means
