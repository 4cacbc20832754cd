"""How far the features of a few patches are from the distribution of a full set's, which never changes.

All compute in double precision, also under autocast, and differentiate in the features of the few. They differ in what
they need of the full set: its mean and covariance, or a sample of its rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datamodules.randomness import noise

Measure = Callable[[Tensor, int], Tensor]
"""The distance of features, float64 (N, D), as a number; the second argument decides what it draws, if anything."""

_NULL = 1e-13  # share of the largest eigenvalue below which one is rounding

BLOCK = 1 << 20
"""Pairs that a kernel is computed for at a time: sets of many thousands have hundreds of millions."""


@dataclass(frozen=True)
class FullSet:
    """What is known of a full set, all float64 and without gradient.

    Attributes:
        mean: (D,).
        covariance: (D, D), divided by the number of rows less one.
        rows: (R, D), a sample of the set; R is 0 where only moments were asked for.
    """

    mean: Tensor
    covariance: Tensor
    rows: Tensor


class DistributionDistance(ABC):
    """A distance to a full set; plain values in the constructor.

    Attributes:
        rows: of the full set that it looks at, at most; 0 where mean and covariance are all it needs.
    """

    rows: int = 0

    @abstractmethod
    def against(self, full: FullSet) -> Measure:
        """What measures the distance to this set; whatever follows from the set alone is computed here, once."""


class Frechet(DistributionDistance):
    """Squared Frechet distance of the normal distributions with the same means and covariances; needs moments alone.

    || m1 - m2 ||^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)): Dowson and Landau (J. Multivariate Anal. 1982), as in the
    FID (Heusel et al., NIPS 2017, arXiv 1706.08500), with covariances divided by N - 1.

    The last trace is the nuclear norm of A C2^(1/2), where A / sqrt(N - 1) are the centred features and C2 the full
    set's covariance, whose root is taken once. Its singular values come from the smaller one of its two Gram matrices,
    N x N or D x D, so that it is exact also with fewer patches than features, where C1 has no full rank, without
    shrinkage. Singular values of zero, in which the root has no derivative, get none.
    """

    def against(self, full: FullSet) -> Measure:
        """See `DistributionDistance`."""
        root, total = _root(full.covariance), full.covariance.trace()

        def measure(features: Tensor, _: int) -> Tensor:
            mean = features.mean(0)
            centred = (features - mean) / math.sqrt(max(1, len(features) - 1))
            apart = (mean - full.mean).square().sum()
            return apart + centred.square().sum() + total - 2 * _nuclear_norm(centred @ root)

        return measure


class MMD(DistributionDistance):
    """Squared maximum mean discrepancy (Gretton et al., JMLR 2012), with a mixture of RBF kernels; needs a sample.

    k(x, y) is the mean over bandwidths b of exp(-|x - y|^2 / (2 b^2)), and the distance the mean of k within the one
    set, plus that within the other, less twice that between them.

    Args:
        bandwidths: as multiples of the median distance of two rows of the full set.
        rows: of the full set that are compared with.
        unbiased: leaves out the similarity of each patch to itself, so that equal distributions have the distance 0 in
            the mean; it may then be negative. False keeps it.

    Raises:
        ValueError: when there is no bandwidth, one is not above 0, or there are fewer than two rows.
    """

    def __init__(
        self, bandwidths: Sequence[float] = (0.25, 0.5, 1.0, 2.0), rows: int = 2048, unbiased: bool = True
    ) -> None:
        if not bandwidths or not all(0 < width < math.inf for width in bandwidths):
            raise ValueError(
                f"MMD: bandwidths are {list(bandwidths)}; expected multiples of the median above 0, such as 1"
            )
        self.bandwidths = list(bandwidths)
        self.rows = _enough("MMD", rows)
        self.unbiased = unbiased

    def against(self, full: FullSet) -> Measure:
        """See `DistributionDistance`.

        The measure raises a ValueError for a single patch, unless it is the biased one.
        """
        median = torch.pdist(full.rows).median() if len(full.rows) > 1 else full.rows.new_zeros(())
        widths = torch.where(median > 0, median, 1) * full.rows.new_tensor(self.bandwidths)

        within = self._mean_within(full.rows, widths)

        def measure(features: Tensor, _: int) -> Tensor:
            between = _similarity(features, full.rows, widths) / (len(features) * len(full.rows))
            return self._mean_within(features, widths) + within - 2 * between

        return measure

    def _mean_within(self, rows: Tensor, widths: Tensor) -> Tensor:
        count = len(rows)
        if not self.unbiased:
            return _similarity(rows, rows, widths) / count**2
        if count < 2:
            raise ValueError(
                "MMD without bias compares pairs, and there is one patch; give more, or set unbiased false"
            )
        return (_similarity(rows, rows, widths) - count) / (count * (count - 1))  # each is 1 to itself


class SlicedWasserstein(DistributionDistance):
    """D times the mean, over random directions, of the squared 2-Wasserstein distance along them; needs a sample.

    Bonneel et al. (J. Math. Imaging Vis. 2015). Along a direction the distance is that of the quantile functions, which
    are steps; they are compared exactly, whatever the two sizes. Times D, the number of features, a mere shift of the
    mean counts as in `Frechet`.

    Args:
        directions: drawn anew for each step.
        rows: of the full set that are compared with.

    Raises:
        ValueError: when there is no direction, or there are fewer than two rows.
    """

    def __init__(self, directions: int = 128, rows: int = 4096) -> None:
        if directions < 1:
            raise ValueError(f"SlicedWasserstein: directions is {directions}; expected 1 or more")
        self.directions = directions
        self.rows = _enough("SlicedWasserstein", rows)

    def against(self, full: FullSet) -> Measure:
        """See `DistributionDistance`."""

        def measure(features: Tensor, step: int) -> Tensor:
            width = features.shape[1]
            drawn = noise(0, "sliced Wasserstein", torch.tensor([step]), (width, self.directions))[0]
            directions = torch.nn.functional.normalize(drawn.to(features), dim=0)
            own, other = (torch.sort(rows @ directions, dim=0).values for rows in (features, full.rows))
            mine, theirs, shares = quantile_coupling(len(own), len(other))
            squares = (own[mine.to(own.device)] - other[theirs.to(own.device)]).square().mean(1)
            return width * (shares.to(squares) * squares).sum()

        return measure


def quantile_coupling(count: int, other: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which order statistics of two samples lie at the same quantiles, and for how much of [0, 1].

    Args:
        count: of the one sample.
        other: of the other.

    Returns:
        Positions in the one sample, sorted, and in the other, int64, and the share of [0, 1], float64, that both have
        these values over.
    """
    # in units of 1 / (count * other), in which all borders are integers
    borders = np.union1d(np.arange(1, count + 1) * other, np.arange(1, other + 1) * count)
    shares = np.diff(borders, prepend=0) / (count * other)
    mine, theirs = (borders - 1) // other, (borders - 1) // count
    return torch.from_numpy(mine), torch.from_numpy(theirs), torch.from_numpy(shares)


def _enough(name: str, rows: int) -> int:
    if rows < 2:
        raise ValueError(f"{name}: rows is {rows}; expected 2 or more of the full set to compare with")
    return rows


def _root(covariance: Tensor) -> Tensor:
    """Symmetric square root of a symmetric matrix without negative eigenvalues but for rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _nuclear_norm(matrix: Tensor) -> Tensor:
    """Sum of the singular values."""
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    values = torch.linalg.eigvalsh(gram)
    there = values > _NULL * len(values) * values[-1].detach().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.where(there, values, 1).sqrt().masked_fill(~there, 0).sum()


def _similarity(rows: Tensor, others: Tensor, widths: Tensor) -> Tensor:
    """Sum over all pairs of rows, (M, D) and (N, D), of the mean of RBF kernels of these widths, (K,)."""
    sums = []
    for some in rows.split(max(1, BLOCK // len(others))):
        squares = _squared_distances(some, others)
        sums += [torch.exp(-squares / (2 * width**2)).sum() for width in widths]
    return torch.stack(sums).sum() / len(widths)


def _squared_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Of each pair of rows: (M, D) and (N, D) to (M, N)."""
    norms = rows.square().sum(1)[:, None] + others.square().sum(1)
    return (norms - 2 * rows @ others.T).clamp(min=0)
