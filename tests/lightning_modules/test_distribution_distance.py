"""Distances of distributions, against scipy and plain loops, and their gradients against finite differences."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.losses import distribution_distance as module
from lightning_modules.losses.distribution_distance import (
    MMD,
    DistributionDistance,
    Frechet,
    FullSet,
    SlicedWasserstein,
    quantile_coupling,
)

WIDTH = 6
DISTANCES = [Frechet(), MMD(rows=40), MMD(rows=40, unbiased=False), SlicedWasserstein(directions=7)]


def normal(count: int, seed: int, width: int = WIDTH, shift: float = 0.0, stretch: float = 1.0) -> Tensor:
    """Correlated features, float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return stretch * torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing + shift


def full_set(rows: Tensor) -> FullSet:
    return FullSet(rows.mean(0), torch.cov(rows.T).reshape(rows.shape[1], -1), rows)


def fid(first: NDArray[Any], second: NDArray[Any]) -> float:
    """As pytorch-fid computes it: numpy's covariances, scipy's matrix square root."""
    means = [rows.mean(0) for rows in (first, second)]
    covariances = [np.cov(rows, rowvar=False) for rows in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    apart = means[0] - means[1]
    return float(apart @ apart + sum(map(np.trace, covariances)) - 2 * np.trace(root).real)


@pytest.mark.parametrize("count", [100, WIDTH + 1, WIDTH, 3])
def test_frechet_is_that_of_pytorch_fid(count: int) -> None:
    """Also with fewer samples than features, where the covariance has no full rank, and scipy's root is less exact."""
    full, features = normal(200, 0), normal(count, 1, shift=0.5, stretch=0.7)
    expected = fid(features.numpy(), full.numpy())
    assert Frechet().against(full_set(full))(features, 0).item() == pytest.approx(expected, rel=1e-5)


def test_frechet_of_one_dimension() -> None:
    """(m1 - m2)^2 + (s1 - s2)^2 of two normal distributions (Dowson and Landau)."""
    full, features = normal(50, 0, width=1), normal(30, 1, width=1, shift=2.0)
    expected = (full.mean() - features.mean()) ** 2 + (full.std() - features.std()) ** 2
    assert Frechet().against(full_set(full))(features, 0).item() == pytest.approx(expected.item(), rel=1e-10)


def test_frechet_of_one_patch_is_finite() -> None:
    """Of a point at c: |c - m|^2 + tr(C)."""
    full = full_set(normal(50, 0))
    features = normal(1, 1).requires_grad_()
    distance = Frechet().against(full)(features, 0)
    expected = (features[0] - full.mean).square().sum() + full.covariance.trace()
    assert distance.item() == pytest.approx(expected.item(), rel=1e-10)
    (gradient,) = torch.autograd.grad(distance, features)
    torch.testing.assert_close(gradient[0], 2 * (features[0] - full.mean).detach())


@pytest.mark.parametrize("constant", ["of both", "of the few"])
def test_frechet_with_a_feature_that_never_changes(constant: str) -> None:
    full, features = normal(60, 0), normal(20, 1)
    features[:, 2] = 0.3
    if constant == "of both":
        full[:, 2] = 0.3
    features.requires_grad_()
    distance = Frechet().against(full_set(full))(features, 0)
    assert distance.item() == pytest.approx(fid(features.detach().numpy(), full.numpy()), rel=1e-5)
    (gradient,) = torch.autograd.grad(distance, features)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("bandwidths", [[1.0], [0.5, 2.0]])
def test_mmd_is_that_of_a_double_loop(bandwidths: list[float], unbiased: bool) -> None:
    """Gretton et al. (2012), equations 3 and 5, pair by pair."""
    full, features = normal(9, 0), normal(5, 1, shift=0.5)
    lengths = [float((a - b).norm()) for a, b in itertools.combinations(full, 2)]
    widths = [factor * sorted(lengths)[(len(lengths) - 1) // 2] for factor in bandwidths]

    def k(x: Tensor, y: Tensor) -> float:
        return sum(math.exp(-float((x - y).square().sum()) / (2 * width**2)) for width in widths) / len(widths)

    def within(rows: Tensor) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j or not unbiased]
        return sum(k(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    between = sum(k(x, y) for x in features for y in full) / (len(features) * len(full))
    measure = MMD(bandwidths, unbiased=unbiased).against(full_set(full))
    assert measure(features, 0).item() == pytest.approx(within(features) + within(full) - 2 * between, rel=1e-9)


def test_mmd_takes_no_more_pairs_at_a_time_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report looks at all patches that were kept: 5 % of DIV2K are 27,000, with 700 million pairs."""
    full, features = full_set(normal(30, 0)), normal(50, 1)
    expected = MMD().against(full)(features, 0)
    taken: list[int] = []
    distances = module._squared_distances
    monkeypatch.setattr(module, "BLOCK", 64)
    monkeypatch.setattr(
        module, "_squared_distances", lambda *rows: (taken.append(len(rows[0]) * len(rows[1])), distances(*rows))[1]
    )
    torch.testing.assert_close(MMD().against(full)(features, 0), expected, rtol=1e-9, atol=0)
    assert max(taken) <= 64
    assert sum(taken) == 30 * 30 + 50 * 50 + 50 * 30


@pytest.mark.parametrize(("count", "other"), [(6, 4), (5, 5), (1, 7), (8, 3)])
def test_sliced_wasserstein_in_one_dimension(count: int, other: int) -> None:
    """Where the only direction is the axis: both samples repeated to a common size, and sorted."""
    few, many = normal(count, 0, width=1), normal(other, 1, width=1, shift=1.0)
    common = math.lcm(count, other)
    repeated = [rows.repeat_interleave(common // len(rows)).sort().values for rows in (few, many)]
    expected = (repeated[0] - repeated[1]).square().mean()
    found = SlicedWasserstein(directions=3).against(full_set(many))(few, 0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(("count", "other"), [(6, 4), (1, 7), (31, 30)])
def test_quantile_coupling_gives_the_first_wasserstein_distance_of_scipy(count: int, other: int) -> None:
    first, second = normal(count, 0, width=1)[:, 0].sort().values, normal(other, 1, width=1)[:, 0].sort().values
    mine, theirs, shares = quantile_coupling(count, other)
    found = ((first[mine] - second[theirs]).abs() * shares).sum()
    assert found.item() == pytest.approx(scipy.stats.wasserstein_distance(first.numpy(), second.numpy()), rel=1e-9)


def test_sliced_wasserstein_of_a_shift_is_its_squared_length() -> None:
    """As it is in the Frechet distance; in the mean over directions, whose lengths scatter by 1 / sqrt(directions)."""
    full = normal(50, 0)
    shift = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)
    expected = shift.square().sum().item()
    assert Frechet().against(full_set(full))(full + shift, 0).item() == pytest.approx(expected, rel=1e-6)
    measure = SlicedWasserstein(directions=4000).against(full_set(full))
    assert measure(full + shift, 0).item() == pytest.approx(expected, rel=0.1)


def test_sliced_wasserstein_draws_directions_by_step() -> None:
    measure = SlicedWasserstein(directions=2).against(full_set(normal(20, 0)))
    features = normal(20, 1)
    assert measure(features, 3) == measure(features, 3)
    assert measure(features, 3) != measure(features, 4)


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("count", [12, 4])
def test_gradient_is_that_of_finite_differences(distance: DistributionDistance, count: int) -> None:
    """With more and with fewer patches than features."""
    measure = distance.against(full_set(normal(40, 0)))
    features = normal(count, 1, shift=0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: measure(rows, 0), features, atol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda one: type(one).__name__)
def test_distance_tells_near_from_far(distance: DistributionDistance) -> None:
    full = normal(400, 0)
    measure = distance.against(full_set(full))
    itself, near, far = (float(measure(rows, 0)) for rows in (full, normal(400, 1), normal(400, 1, shift=1.0)))
    assert itself == pytest.approx(0, abs=0.01)
    assert abs(near) < 0.3 * far
    wide = float(measure(normal(400, 1, stretch=3.0), 0))
    assert wide > 3 * abs(near)


def test_what_each_needs_of_the_full_set() -> None:
    assert (Frechet().rows, MMD(rows=5).rows, SlicedWasserstein(rows=7).rows) == (0, 5, 7)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MMD(bandwidths=[]), r"bandwidths are \[\]"),
        (lambda: MMD(bandwidths=[1, 0]), r"bandwidths are \[1, 0\]"),
        (lambda: MMD(rows=1), "MMD: rows is 1; expected 2 or more"),
        (lambda: SlicedWasserstein(rows=0), "SlicedWasserstein: rows is 0"),
        (lambda: SlicedWasserstein(directions=0), "directions is 0; expected 1 or more"),
        (lambda: MMD().against(full_set(normal(9, 0)))(normal(1, 1), 0), "there is one patch; give more, or set unb"),
    ],
)
def test_settings_out_of_range(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
