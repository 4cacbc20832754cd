"""What every selector promises, and those that read scores and labels alone."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from datamodules.selection import selectors
from datamodules.selection.interfaces import Pool
from datamodules.selection.selectors import (
    ClusterBalanced,
    Deduplicated,
    DistributionMatching,
    Herding,
    Highest,
    KCentre,
    Lowest,
    Random,
    Stratified,
)
from datamodules.selection.selectors.clustered import equal_quotas, proportional_quotas, select_per_class
from datamodules.selection.selectors.draws import random_order

EVERY = [
    Random(),
    Lowest(),
    Highest(),
    Stratified(),
    KCentre(),
    Herding(),
    Deduplicated(),
    DistributionMatching(),
    ClusterBalanced(),
    ClusterBalanced(KCentre(), shares="proportional"),
    ClusterBalanced(DistributionMatching()),
]
SEEDED = [part for part in EVERY if not isinstance(part, Lowest | Highest | Herding)]


def written(selector):
    return f"{type(selector).__name__}-{type(getattr(selector, 'inner', None)).__name__}"


def make_pool(count, dimensions=5, classes=3, seed=0):
    """Scores and features with exact duplicates, float32 as they are stored."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((count, dimensions)).astype(np.float32) * 3 + 7
    features[count // 2 : count // 2 + 3] = features[0]
    labels = random.integers(0, classes, count)
    labels[:classes] = np.arange(classes)
    return Pool(random.normal(25, 4, count).round(1), features, labels)


def test_the_package_exports_every_selector_tested_here():
    assert {type(part).__name__ for part in EVERY} == set(selectors.__all__)


@pytest.mark.parametrize("selector", EVERY, ids=written)
@pytest.mark.parametrize("count", [1, 2, 17, 60])
def test_a_choice_is_distinct_and_repeatable(selector, count):
    pool = make_pool(60)
    chosen = selector.select(pool, count, seed=5)
    assert chosen.dtype == np.int64
    assert chosen.shape == (count,)
    assert len(set(chosen.tolist())) == count
    assert set(chosen.tolist()) <= set(range(60))
    with threadpool_limits(2):
        assert np.array_equal(chosen, selector.select(pool, count, seed=5))


@pytest.mark.parametrize("selector", SEEDED, ids=written)
def test_seeds_make_choices_differ(selector):
    pool = make_pool(400)
    choices = {tuple(sorted(selector.select(pool, 20, seed).tolist())) for seed in range(4)}
    assert len(choices) == 4


@pytest.mark.parametrize("selector", [Lowest(), Highest(), Herding()], ids=written)
def test_without_a_random_decision_neither_seed_nor_order_matter(selector):
    pool = make_pool(50)
    pool = Pool(pool.scores + np.arange(50) / 1000, pool.features + np.arange(50)[:, None] / 100)  # no ties
    order = np.random.default_rng(1).permutation(50)
    assert np.array_equal(order[selector.select(pool.subset(order), 9, 0)], selector.select(pool, 9, 1))


@pytest.mark.parametrize("selector", EVERY, ids=written)
def test_what_a_selector_does_not_ask_for_may_be_missing(selector):
    pool = make_pool(30)
    features = pool.features if selector.needs_features else None
    labels = pool.labels if selector.needs_labels else None
    bare = Pool(pool.scores, features, labels)
    assert np.array_equal(selector.select(bare, 7, 0), selector.select(pool, 7, 0))


def test_the_ends_of_the_scores_with_ties_by_position():
    pool = Pool(np.array([3.0, 1.0, 2.0, 1.0, 3.0]))
    assert Lowest().select(pool, 3, 0).tolist() == [1, 3, 2]
    assert Highest().select(pool, 3, 0).tolist() == [0, 4, 2]


def test_random_takes_every_candidate_as_often():
    pool, rounds = Pool(np.zeros(40)), 3000
    times = np.bincount(np.concatenate([Random().select(pool, 10, seed) for seed in range(rounds)]), minlength=40)
    # Chi-squared of 39 degrees of freedom (its draws without replacement vary less): 99.9 % lie below 72.
    assert ((times - rounds / 4) ** 2 / (rounds / 4)).sum() < 72


def test_a_random_order_of_a_million_is_a_permutation_without_drift():
    order = random_order(3, "any", Pool(np.zeros(1_000_000)))
    assert np.array_equal(np.sort(order), np.arange(1_000_000))
    # Mean position of the first tenth: uniform, so its standard error is 1e6 / sqrt(12) / sqrt(1e5) = 913.
    assert abs(order[:100_000].mean() - 499_999.5) < 4 * 913


@pytest.mark.parametrize("count", [1, 7, 30, 97])
def test_stratified_takes_one_of_each_quantile_bin(count):
    scores = np.random.default_rng(0).permutation(97).astype(np.float64)  # the score is the rank
    ranks = scores[Stratified().select(Pool(scores), count, 0)]
    edges = [place * 97 // count for place in range(count + 1)]
    assert all(edges[place] <= rank < edges[place + 1] for place, rank in enumerate(ranks))


def plain_equal_quotas(sizes, count):
    """One after the other to the class with the fewest so far that has some left; the remainder as documented."""
    quotas = [0] * len(sizes)
    while sum(quotas) < count:
        level = min(quota for quota, size in zip(quotas, sizes, strict=True) if quota < size)
        lowest = [k for k in range(len(sizes)) if quotas[k] == level < sizes[k]]
        lowest.sort(key=lambda k: (quotas[k] - sizes[k], k))
        for k in lowest[: count - sum(quotas)]:
            quotas[k] += 1
    return quotas


@pytest.mark.parametrize("seed", range(20))
def test_quotas_against_handing_out_one_by_one(seed):
    random = np.random.default_rng(seed)
    sizes = random.integers(0, 30, random.integers(1, 9)) + 1
    for count in range(1, sizes.sum() + 1):
        assert equal_quotas(sizes, count).tolist() == plain_equal_quotas(sizes, count)
        shares = proportional_quotas(sizes, count)
        assert shares.sum() == count
        assert (np.abs(shares - sizes * count / sizes.sum()) < 1).all()  # Hamilton keeps to the quota
        assert (shares <= sizes).all()


def test_cluster_balanced_hands_on_what_a_class_lacks():
    labels = np.array([0] * 50 + [1] * 3 + [2] * 40)
    pool = Pool(np.arange(93.0), labels=labels)
    assert np.bincount(labels[ClusterBalanced().select(pool, 31, 0)]).tolist() == [14, 3, 14]
    proportional = ClusterBalanced(shares="proportional").select(pool, 31, 0)
    assert np.bincount(labels[proportional]).tolist() == [17, 1, 13]  # 16.67, 1, 13.33
    lowest = ClusterBalanced(Lowest()).select(pool, 6, 0)
    assert lowest.tolist() == [0, 1, 50, 51, 53, 54]


def test_classes_of_the_same_make_are_not_chosen_alike():
    pool = Pool(np.zeros(200), labels=np.repeat([0, 1], 100))
    chosen = ClusterBalanced().select(pool, 20, 0)
    assert set(chosen[:10]) != set(chosen[10:] - 100)


def test_cluster_balanced_needs_what_its_inner_selector_needs():
    assert not ClusterBalanced().needs_features
    assert ClusterBalanced(KCentre()).needs_features
    assert ClusterBalanced(KCentre()).identity() == {
        "class": "ClusterBalanced",
        "inner": {"class": "KCentre"},
        "shares": "equal",
    }


def test_images_per_class():
    pool = make_pool(60, classes=4)
    chosen = select_per_class(Lowest(), pool, 5, 0)
    for place, members in enumerate(chosen.reshape(4, 5)):
        own = np.flatnonzero(pool.labels == place)
        assert members.tolist() == own[np.argsort(pool.scores[own], kind="stable")[:5]].tolist()


def test_a_class_too_small_for_the_budget_is_named():
    pool = Pool(np.zeros(12), labels=np.array([0] * 5 + [1] * 3 + [2] * 4))
    with pytest.raises(
        ValueError, match=r"class 1 of 3 has 3 patches but 4 .* at most 3 images per class .* fewer classes"
    ):
        select_per_class(Random(), pool, 4, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClusterBalanced(shares="even"), "'even'; expected 'equal' or 'proportional'"),
        (lambda: Deduplicated(similarity=1), "similarity is 1; expected a number between 0 and 1"),
        (lambda: DistributionMatching(score_weight=-1), "score_weight is -1; expected at least 0"),
        (lambda: DistributionMatching(components=0), "components is 0; expected at least 1"),
        (lambda: DistributionMatching(sweeps=-1), "sweeps is -1; expected at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
