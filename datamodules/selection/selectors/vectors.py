"""Arithmetic on feature vectors that need not fit in memory: by blocks of rows, in float64, on one thread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from datamodules.selection.interfaces import Floats, Indices, Vectors

BLOCK_VALUES = 1 << 18
"""Values that are widened to float64 at a time: 2 MB, which stay in a processor's cache."""
TOLERANCE = 1e-9
"""Smaller differences are rounding, in which machines differ: they must decide nothing."""
FLOAT32_STEP = 2.0**-23


def first_minimum(values: Floats) -> int:
    """Position of the smallest of some numbers; the first of several that differ by rounding alone.

    Args:
        values: (N,); infinite for those out of the question, not all of them.
    """
    lowest = values.min()
    return int(np.argmax(values <= lowest + TOLERANCE * max(1.0, abs(lowest))))


class Standardised:
    """Features whose every dimension has mean 0 and standard deviation 1 over the pool, so that no unit decides.

    Args:
        features: float32 (N, D), in memory or memory-mapped. Dimensions without spread become 0.
    """

    def __init__(self, features: Vectors) -> None:
        self._features = features
        count, dimensions = features.shape
        self._step = max(1, BLOCK_VALUES // dimensions)
        total, squares = np.zeros(dimensions), np.zeros(dimensions)
        for _, block in self._raw():
            total += block.sum(axis=0)
        self._mean = total / count
        for _, block in self._raw():
            squares += np.square(block - self._mean).sum(axis=0)
        deviation = np.sqrt(squares / count)
        spread = deviation > FLOAT32_STEP * np.abs(self._mean)
        self._inverse = np.divide(1.0, deviation, out=np.zeros(dimensions), where=spread)

    def __len__(self) -> int:
        return len(self._features)

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Consecutive rows and their vectors, (rows, D), a few megabytes at a time."""
        for rows, block in self._raw():
            yield rows, (block - self._mean) * self._inverse

    def rows(self, positions: Indices) -> Floats:
        """Vectors of some candidates, (len(positions), D)."""
        return (self._features[positions].astype(np.float64) - self._mean) * self._inverse

    def products(self, direction: Floats) -> Floats:
        """Scalar product of every vector with one of (D,); (N,)."""
        scaled = direction * self._inverse
        products = np.empty(len(self))
        for rows, block in self._raw():
            # einsum, not a matrix product, whose threads split sums: here their number decides nothing.
            products[rows] = np.einsum("nd,d->n", block, scaled)
        return products - scaled @ self._mean

    def squared_norms(self) -> Floats:
        """Squared length of every vector, (N,)."""
        return np.concatenate([np.einsum("nd,nd->n", block, block) for _, block in self.blocks()])

    def _raw(self) -> Iterator[tuple[slice, Floats]]:
        for start in range(0, len(self), self._step):
            rows = slice(start, min(start + self._step, len(self)))
            yield rows, self._features[rows].astype(np.float64)
