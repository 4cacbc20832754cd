"""Distances of sets of vectors against torchmetrics, sklearn, plain loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torchmetrics.image.kid import poly_mmd

from datamodules.selection import distances
from datamodules.selection.distances import energy_distance, kernel_distance, nearest, standardiser


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_standardised_as_sklearn_does_without_the_dimensions_that_have_no_spread():
    reference, others = normal(0, 50, 4) * torch.tensor([1, 10, 0, 0.1]) + 3, normal(1, 7, 4)
    standardise = standardiser(reference.float())
    scaler = StandardScaler().fit(reference.float().double().numpy()[:, [0, 1, 3]])
    for each in (reference.float(), others):
        expected = scaler.transform(each.double().numpy()[:, [0, 1, 3]])
        np.testing.assert_allclose(standardise(each), expected, rtol=1e-9)


def test_kernel_distance_is_that_of_torchmetrics():
    """Which knows sets of one size only."""
    first, second = normal(0, 40, 6), normal(1, 40, 6) + 0.3
    assert kernel_distance(first, second) == pytest.approx(poly_mmd(first, second).item(), rel=1e-12)


@pytest.mark.parametrize(("distance", "kernel"), [
    (kernel_distance, lambda x, y: (x @ y / 5 + 1) ** 3),
    (energy_distance, lambda x, y: -np.linalg.norm(x - y) / math.sqrt(2 * 5)),
])  # fmt: skip
def test_unbiased_estimators_leave_out_pairs_of_a_vector_with_itself(distance, kernel):
    first, second = normal(2, 8, 5), normal(3, 5, 5) + 0.5
    x, y = first.numpy(), second.numpy()
    within = [
        np.mean([kernel(a, b) for i, a in enumerate(each) for j, b in enumerate(each) if i != j]) for each in (x, y)
    ]
    expected = sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_energy_distance_of_two_normal_distributions():
    """In one dimension E|N(m, 2)| is known: 2 (E|X - Y| - E|X - X'|) with the mean of a folded normal distribution."""
    mean, count = 1.5, 4000
    first, second = normal(4, count, 1), normal(5, count, 1) + mean
    apart = 2 / math.sqrt(math.pi) * math.exp(-(mean**2) / 4) + mean * math.erf(mean / 2)
    expected = 2 * (apart - 2 / math.sqrt(math.pi)) / math.sqrt(2)
    assert energy_distance(first, second) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("distance", [kernel_distance, energy_distance])
def test_of_one_distribution_distances_are_zero_on_average(distance):
    draws = [distance(normal(2 * seed, 30, 8), normal(2 * seed + 1, 50, 8)) for seed in range(40)]
    assert min(draws) < 0 < max(draws)
    assert abs(np.mean(draws)) < 3 * np.std(draws) / math.sqrt(len(draws))
    assert distance(normal(0, 30, 8), normal(1, 50, 8) + 0.5) > max(draws)


@pytest.mark.parametrize("distance", [kernel_distance, energy_distance])
def test_a_single_vector_has_no_distance(distance):
    assert distance(normal(0, 1, 3), normal(1, 9, 3)) is None
    assert distance(normal(0, 9, 0), normal(1, 9, 0)) == 0  # all patches are alike


def test_nearest_is_what_sklearn_finds_in_several_blocks(monkeypatch):
    monkeypatch.setattr(distances, "BLOCK", 7)
    queries, pool = normal(0, 20, 30), normal(1, 40, 30)
    pool[25] = queries[3]
    found = nearest(queries, pool)
    expected, positions = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(pool).kneighbors(queries)
    assert found.position.tolist() == positions[:, 0].tolist()
    np.testing.assert_allclose(found.distance, expected[:, 0] / math.sqrt(60), atol=1e-6)
    assert found.position[3] == 25


def test_neighbours_of_ones_own_group_do_not_count():
    vectors = torch.tensor([[0.0], [0.1], [3.0], [3.2], [7.0]]).double()
    groups = torch.tensor([5, 5, 6, 6, 5])
    found = nearest(vectors, vectors, (groups, groups))
    assert found.position.tolist() == [2, 2, 1, 1, 3]
    np.testing.assert_allclose(found.distance * math.sqrt(2), [3.0, 2.9, 2.9, 3.1, 3.8])
    alone = nearest(vectors, vectors, (groups, torch.full((5,), 5)))
    assert alone.distance.isinf().tolist() == [True, True, False, False, True]


def test_one_is_the_distance_of_two_unrelated_vectors():
    first, second = normal(0, 400, 64), normal(1, 400, 64)
    squared = torch.stack([nearest(a[None], b[None]).distance for a, b in zip(first, second, strict=True)]).square()
    assert squared.mean().item() == pytest.approx(1, abs=0.03)
