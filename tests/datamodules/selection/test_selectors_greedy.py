"""Selectors in feature space against plain loops over all candidates."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from datamodules.selection.interfaces import Pool
from datamodules.selection.selectors import Deduplicated, DistributionMatching, Herding, KCentre
from datamodules.selection.selectors.vectors import Standardised, first_minimum


def make_features(count=80, dimensions=6, seed=0):
    """Dimensions of very different units, one without spread, and duplicates."""
    features = np.random.default_rng(seed).standard_normal((count, dimensions))
    features = (features * 10.0 ** np.arange(-2, dimensions - 2) + 5).astype(np.float32)
    features[:, 1] = 0.1
    features[-3:] = features[:3]
    return features


def plainly_standardised(features):
    wide = features.astype(np.float64)
    spread = wide.std(axis=0)
    spread[1] = np.inf  # the dimension without spread
    return (wide - wide.mean(axis=0)) / spread


@pytest.mark.parametrize("block_values", [1, 100, 1 << 18])
def test_vectors_by_blocks(block_values, monkeypatch):
    monkeypatch.setattr("datamodules.selection.selectors.vectors.BLOCK_VALUES", block_values)
    features = make_features()
    vectors, plain = Standardised(features), plainly_standardised(features)
    direction = np.random.default_rng(1).standard_normal(6)
    assert np.allclose(np.concatenate([block for _, block in vectors.blocks()]), plain, atol=1e-9)
    assert np.allclose(vectors.rows(np.array([5, 2])), plain[[5, 2]], atol=1e-9)
    assert np.allclose(vectors.products(direction), plain @ direction, atol=1e-9)
    assert np.allclose(vectors.squared_norms(), (plain**2).sum(axis=1), atol=1e-9)


def test_rounding_does_not_decide_which_is_smallest():
    assert first_minimum(np.array([3.0, 1 + 1e-12, 1.0])) == 1
    assert first_minimum(np.array([3.0, 1 + 1e-6, 1.0])) == 2
    assert first_minimum(np.array([np.inf, -1e6, -1e6 - 1e-6])) == 1


@pytest.mark.parametrize("seed", range(3))
def test_k_centre_is_farthest_first(seed):
    features = make_features(seed=seed)
    chosen = KCentre().select(Pool(np.zeros(80), features), 75, seed).tolist()
    points = plainly_standardised(features)
    for step in range(1, 75):
        others = [one for one in range(80) if one not in chosen[:step]]
        nearest = [min(np.linalg.norm(points[one] - points[c]) for c in chosen[:step]) for one in others]
        best = [one for one, distance in zip(others, nearest, strict=True) if distance > max(nearest) - 1e-6]
        assert chosen[step] == best[0]


def test_k_centre_covers_within_twice_the_least_radius():
    # Ten tight groups, far apart: the least radius of ten centres is below 0.1, so each group holds one.
    groups = np.arange(200) % 10
    features = np.random.default_rng(0).uniform(-0.05, 0.05, (200, 2)).astype(np.float32)
    features += np.stack([groups % 5, groups // 5], axis=1)
    assert set(groups[KCentre().select(Pool(np.zeros(200), features), 10, 0)]) == set(range(10))


def test_herding_is_greedy_matching_of_the_mean():
    features = make_features()
    chosen = Herding().select(Pool(np.zeros(80), features), 40, 0).tolist()
    points = plainly_standardised(features)
    for step in range(40):
        others = [one for one in range(80) if one not in chosen[:step]]
        gaps = [np.linalg.norm(points[[*chosen[:step], one]].mean(axis=0) - points.mean(axis=0)) for one in others]
        assert chosen[step] == others[int(np.argmax(np.array(gaps) < min(gaps) + 1e-9))]


def plainly_deduplicated(units, members, similarity):
    kept = []
    for one in members:
        if all(units[one] @ units[other] <= similarity for other in kept):
            kept.append(one)
    return kept


@pytest.mark.parametrize("block", [1, 7, 256])
def test_near_duplicates_are_passed_over(block, monkeypatch):
    monkeypatch.setattr("datamodules.selection.selectors.deduplicated.BLOCK", block)
    random = np.random.default_rng(0)
    features = random.standard_normal((300, 3)).astype(np.float32)
    labels = random.integers(0, 3, 300)
    points = (features - features.mean(axis=0, dtype=np.float64)) / features.std(axis=0, dtype=np.float64)
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    # All that can be had: asking for one more than the distinct ones brings in the first duplicate.
    every = Deduplicated(0.9).select(Pool(np.zeros(300), features, labels), 300, 0).tolist()
    distinct = [one for k in range(3) for one in plainly_deduplicated(units, [i for i in every if labels[i] == k], 0.9)]
    assert every[: len(distinct)] == distinct
    assert 20 < len(distinct) < 150
    chosen = Deduplicated(0.9).select(Pool(np.zeros(300), features, labels), 30, 0)
    assert np.bincount(labels[chosen]).tolist() == [10, 10, 10]
    alike = (units[chosen] @ units[chosen].T > 0.9) & (labels[chosen][:, None] == labels[chosen])
    assert alike.sum() == 30  # each with itself


def test_a_class_of_duplicates_hands_its_share_on():
    features = np.random.default_rng(0).standard_normal((90, 16)).astype(np.float32)
    features[:30] = features[0] + np.random.default_rng(1).normal(0, 1e-3, (30, 16))
    labels = np.repeat([0, 1, 2], 30)
    chosen = Deduplicated().select(Pool(np.zeros(90), features, labels), 31, 0)
    assert np.bincount(labels[chosen]).tolist() == [1, 15, 15]
    filled = Deduplicated().select(Pool(np.zeros(90), features, labels), 80, 0)
    assert np.bincount(labels[filled]).tolist() == [20, 30, 30]


def test_features_may_be_mapped_from_a_file_and_are_never_copied_whole(tmp_path):
    count, dimensions = 60_000, 64
    random = np.random.default_rng(0)
    np.save(tmp_path / "features.npy", random.standard_normal((count, dimensions)).astype(np.float32))
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r", allow_pickle=False)
    pool = Pool(random.random(count), mapped, random.integers(0, 7, count))
    in_memory = Pool(pool.scores, np.array(mapped), pool.labels)
    for selector in (KCentre(), Herding(), Deduplicated()):
        tracemalloc.start()
        chosen = selector.select(pool, 5, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.array_equal(chosen, selector.select(in_memory, 5, 0))
        assert peak < count * dimensions * 4  # as float32; in float64 twice that


def test_the_same_choice_as_on_another_machine():
    """Positions chosen on x86-64 Linux with NumPy 2.4: they must come out on every machine."""
    grid = np.arange(200)
    features = np.stack([grid % 7, grid % 11, grid * grid % 13, grid % 2], axis=1).astype(np.float32)
    pool = Pool((grid * 37 % 101).astype(np.float64), features, grid % 3)
    chosen = {
        type(part).__name__: part.select(pool, 6, 0).tolist()
        for part in (KCentre(), Herding(), Deduplicated(), DistributionMatching())
    }
    assert chosen == {
        "KCentre": [58, 195, 91, 21, 55, 142],
        "Herding": [115, 192, 171, 114, 158, 93],
        "Deduplicated": [36, 111, 79, 184, 56, 23],
        "DistributionMatching": [48, 105, 73, 134, 128, 137],
    }
