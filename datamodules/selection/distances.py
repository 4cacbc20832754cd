"""How far two sets of feature vectors lie apart, and how near each vector of one lies to the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 1024
"""Vectors that are searched at a time, to bound memory."""

FLOAT32_STEP = 2.0**-23


class Nearest(NamedTuple):
    """The nearest neighbour of each vector.

    Attributes:
        distance: float64 (N,), 1 where two unrelated vectors typically lie; infinite where there is no neighbour.
        position: of the neighbour, int64 (N,).
    """

    distance: Tensor
    position: Tensor


def standardiser(reference: Tensor) -> Callable[[Tensor], Tensor]:
    """What gives every dimension mean 0 and standard deviation 1 over the reference, so that no unit decides.

    Args:
        reference: floating point, (N, D), N at least 1. Dimensions without spread are left out.

    Returns:
        A function of (M, D) to float64 (M, D'), on the device of the reference.
    """
    deviation, mean = torch.std_mean(reference.double(), dim=0, correction=0)
    spread = deviation > FLOAT32_STEP * mean.abs()
    return lambda vectors: (vectors.double()[:, spread] - mean[spread]) / deviation[spread]


def nearest(queries: Tensor, pool: Tensor, groups: tuple[Tensor, Tensor] | None = None) -> Nearest:
    """The nearest neighbours by Euclidean distance.

    Distances are divided by sqrt(2 D), the root mean squared distance of two independent standardised vectors.

    Args:
        queries: standardised, (N, D).
        pool: where neighbours are looked for, (M, D), M at least 1.
        groups: of the queries, (N,), and of the pool, (M,): neighbours of one's own group do not count.
    """
    best = Nearest(queries.new_full((len(queries),), math.inf), torch.zeros(len(queries), dtype=torch.int64))
    for start in range(0, len(pool), BLOCK):
        distances = torch.cdist(queries, pool[start : start + BLOCK])
        if groups is not None:
            distances[groups[0][:, None] == groups[1][start : start + BLOCK]] = math.inf
        least, position = distances.min(1)
        nearer = least < best.distance
        best = Nearest(least.where(nearer, best.distance), (position + start).where(nearer, best.position))
    return Nearest(best.distance / math.sqrt(2 * max(1, queries.shape[1])), best.position)


def kernel_distance(first: Tensor, second: Tensor) -> float | None:
    """Squared maximum mean discrepancy with the kernel (x . y / D + 1)^3, unbiased: KID where features are Inception's.

    Binkowski et al., ICLR 2018 (arXiv 1801.01401); the estimator is eq. 3 of Gretton et al. (JMLR 2012). Its mean is 0
    for two samples of one distribution, so that it is below 0 for about half of them.

    Args:
        first: (N, D).
        second: (M, D).

    Returns:
        None where one of them has fewer than two vectors, which is not defined.
    """
    return _unbiased(first, second, lambda x, y: (x @ y.T / max(1, x.shape[1]) + 1) ** 3)


def energy_distance(first: Tensor, second: Tensor) -> float | None:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased (Szekely and Rizzo, J. Stat. Plan. Inference 2013).

    A maximum mean discrepancy without a setting, which sees every difference of two distributions (Sejdinovic et al.,
    Ann. Stat. 2013). In units of `Nearest.distance`; otherwise as `kernel_distance`.
    """
    unit = math.sqrt(2 * max(1, first.shape[1]))
    return _unbiased(first, second, lambda x, y: -torch.cdist(x, y) / unit)


def _unbiased(first: Tensor, second: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> float | None:
    if min(len(first), len(second)) < 2:
        return None
    within = (_mean_of_pairs(kernel(each, each)) for each in (first, second))
    return float(sum(within) - 2 * kernel(first, second).mean())


def _mean_of_pairs(values: Tensor) -> Tensor:
    """Without those of a vector with itself."""
    count = len(values)
    return (values.sum() - values.diagonal().sum()) / (count * (count - 1))
