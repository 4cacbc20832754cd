"""Distribution matching: its objective computed directly, and how near it comes by distances that it does not use."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance, percentileofscore, wasserstein_distance
from sklearn.decomposition import PCA

from datamodules.selection.interfaces import Pool
from datamodules.selection.selectors import DistributionMatching, Herding, KCentre, Random, Stratified, matching

WEIGHT = 0.7


def skewed_pool(count, dimensions=4, seed=0):
    """Two unequal groups in dimensions of different units, and scores with ties that depend on them."""
    random = np.random.default_rng(seed)
    features = random.gamma(1.5, 1.0, (count, dimensions)) * 10.0 ** np.arange(dimensions)
    features[: count // 5] *= -1
    scores = (20 + 3 * np.log1p(np.abs(features[:, 0])) + random.normal(0, 1, count)).round(1)
    order = random.permutation(count)
    return Pool(scores[order], features[order].astype(np.float32))


def plain_points(pool, components, reference=None):
    """Coordinates as documented, by scikit-learn's PCA and SciPy's ranks."""
    reference = pool if reference is None else reference
    wide, others = pool.features.astype(np.float64), reference.features.astype(np.float64)
    mean, deviation = others.mean(axis=0), others.std(axis=0)
    pca = PCA(components, svd_solver="full").fit((others - mean) / deviation)
    scale = np.sqrt(pca.explained_variance_.sum() * (len(others) - 1) / len(others))
    ranks = [percentileofscore(reference.scores, score, kind="mean") / 100 - 0.5 for score in pool.scores]
    return np.column_stack([pca.transform((wide - mean) / deviation) / scale, WEIGHT * np.sqrt(12) * np.array(ranks)])


def plain_energy_distance(points, chosen, targets=None):
    """2 E|s - p| - E|s - s'| - E|p - p'|, from all pairs."""
    subset, targets = points[chosen], points if targets is None else targets
    return 2 * cdist(subset, targets).mean() - cdist(subset, subset).mean() - cdist(targets, targets).mean()


@pytest.mark.parametrize("components", [2, 4])
def test_each_patch_added_lowers_the_energy_distance_most(components):
    pool = skewed_pool(40)
    points = plain_points(pool, components)
    chosen = DistributionMatching(WEIGHT, components, sweeps=0).select(pool, 12, 3).tolist()
    for step in range(1, 12):
        others = [one for one in range(40) if one not in chosen[:step]]
        best = min(others, key=lambda one: plain_energy_distance(points, [*chosen[:step], one]))
        assert chosen[step] == best


def test_after_the_sweeps_no_exchange_lowers_it():
    pool = skewed_pool(60)
    points = plain_points(pool, 4)
    chosen = DistributionMatching(WEIGHT, sweeps=50).select(pool, 8, 0).tolist()
    reached = plain_energy_distance(points, chosen)
    for place in range(8):
        for one in set(range(60)) - set(chosen):
            assert plain_energy_distance(points, [*chosen[:place], one, *chosen[place + 1 :]]) > reached - 1e-9
    grown = DistributionMatching(WEIGHT, sweeps=0).select(pool, 8, 0)
    assert reached < plain_energy_distance(points, grown)


def test_one_patch_is_the_geometric_median():
    pool = skewed_pool(50)
    points = plain_points(pool, 4)
    assert DistributionMatching(WEIGHT).select(pool, 1, 0).tolist() == [int(cdist(points, points).sum(axis=1).argmin())]


def test_it_comes_near_the_best_of_all_subsets():
    pool = skewed_pool(18)
    points = plain_points(pool, 4)
    every = sorted(plain_energy_distance(points, list(subset)) for subset in combinations(range(18), 4))
    for seed in range(4):
        chosen = DistributionMatching(WEIGHT).select(pool, 4, seed)
        assert plain_energy_distance(points, chosen) <= every[len(every) // 200]  # among the best 0.5 %


def test_features_without_spread_leave_the_scores():
    pool = Pool(np.random.default_rng(0).permutation(101).astype(np.float64), np.ones((101, 3), dtype=np.float32))
    chosen = np.sort(pool.scores[DistributionMatching(sweeps=9).select(pool, 5, 0)])
    # On a line the energy distance is least at the quantiles (2 i - 1) / (2 n): 10, 30, 50, 70, 90 of 0 .. 100.
    assert np.abs(chosen - [10, 30, 50, 70, 90]).max() <= 1


def sliced(distance, chosen, others, slices=60):
    """Mean of a one-dimensional distance over random directions."""
    directions = np.random.default_rng(99).standard_normal((slices, chosen.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return float(np.mean([distance(chosen @ direction, others @ direction) for direction in directions]))


def shifted(pool):
    """A reference that covers the upper part of a pool's features and scores."""
    upper = pool.subset(np.flatnonzero(pool.features[:, 0] > np.median(pool.features[:, 0])))
    return Pool(upper.scores + 0.5, upper.features * np.float32(1.2))


def test_a_reference_is_approached_until_no_exchange_brings_it_nearer():
    pool = skewed_pool(60)
    pool = replace(pool, reference=shifted(skewed_pool(80, seed=1)))
    points, targets = plain_points(pool, 4, pool.reference), plain_points(pool.reference, 4)

    def reached(chosen):
        return plain_energy_distance(points, chosen, targets)

    chosen = DistributionMatching(WEIGHT, sweeps=50).select(pool, 8, 0).tolist()
    for place in range(8):
        for one in set(range(60)) - set(chosen):
            assert reached([*chosen[:place], one, *chosen[place + 1 :]]) > reached(chosen) - 1e-9
    own = DistributionMatching(WEIGHT, sweeps=50).select(replace(pool, reference=None), 8, 0)
    assert reached(chosen) < reached(own) / 2


def test_a_pool_that_is_its_own_reference_changes_nothing():
    pool = skewed_pool(200)
    twice = replace(pool, reference=Pool(pool.scores, pool.features))
    plain, same = (DistributionMatching(WEIGHT).select(one, 20, 3) for one in (pool, twice))
    np.testing.assert_array_equal(plain, same)


def test_references_stand_for_a_large_pool(monkeypatch):
    monkeypatch.setattr(matching, "REFERENCES", 300)
    pool = skewed_pool(3000)
    points = plain_points(pool, 4)
    near = plain_energy_distance(points, DistributionMatching(WEIGHT).select(pool, 40, 0))
    far = [plain_energy_distance(points, Random().select(pool, 40, seed)) for seed in range(5)]
    assert near < np.mean(far) / 2


@pytest.mark.parametrize("count", [10, 40, 160])
@pytest.mark.parametrize("distance", [wasserstein_distance, energy_distance])
def test_nearer_to_unseen_data_than_other_rules(count, distance):
    # Chosen from one half of a sample, compared with the other half.
    whole = skewed_pool(4000)
    pool, unseen = whole.subset(np.arange(2000)), whole.subset(np.arange(2000, 4000))
    wide = np.column_stack([whole.features.astype(np.float64), whole.scores])
    points = (wide - wide.mean(axis=0)) / wide.std(axis=0)
    far = {
        type(rule).__name__: np.mean(
            [sliced(distance, points[rule.select(pool, count, seed)], points[2000:]) for seed in range(3)]
        )
        for rule in (DistributionMatching(), Random(), Stratified(), KCentre(), Herding())
    }
    near = far.pop("DistributionMatching")
    assert near < 0.8 * min(far.values()), far
    assert len(unseen) == 2000


@pytest.mark.realdata
def test_nearer_to_unseen_photographs(data_root):
    """64-px patches of 50 photographs of BSD100 against the 50 others, by sliced Wasserstein distance."""
    halves = []
    for start in (0, 1):
        paths = sorted((data_root / "BSD100" / "HR").glob("*.png"))[start::2]
        grey = [np.asarray(Image.open(path).convert("L"), dtype=np.float32) for path in paths]
        halves.append(np.concatenate([patches(photo) for photo in grey]))
    features = [describe(half) for half in halves]
    points = [half / features[1].std(axis=0) for half in features]
    pool = Pool(features[0][:, -1].round(6).astype(np.float64), features[0].astype(np.float32))
    rules = (DistributionMatching(), Random(), KCentre(), Herding())
    near, *far = (
        np.mean([sliced(wasserstein_distance, points[0][rule.select(pool, 40, seed)], points[1]) for seed in range(3)])
        for rule in rules
    )
    assert near < 0.8 * min(far)


def patches(photo, side=64):
    height, width = (length // side * side for length in photo.shape)
    return photo[:height, :width].reshape(height // side, side, -1, side).swapaxes(1, 2).reshape(-1, side, side)


def describe(grey):
    """Brightness, contrast, and log gradients of three distances in both directions, (N, 8)."""
    columns = [grey.mean(axis=(1, 2)), grey.std(axis=(1, 2))]
    for distance in (1, 2, 4):
        for axis in (1, 2):
            step = np.abs(grey - np.roll(grey, distance, axis)).mean(axis=(1, 2))
            columns.append(np.log1p(step))
    return np.column_stack(columns).astype(np.float64)
