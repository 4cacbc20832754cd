"""Keep: what it chooses and refuses.

Independent sources: PSNR in NumPy and its order, the energy distance from all pairs on axes by scikit-learn, and the
scores and vectors that the same patches have as candidates.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from scipy.spatial.distance import cdist
from scipy.stats import percentileofscore
from sklearn.decomposition import PCA

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.bicubic import downscale, upscale
from datamodules.distilled import DistilledPatch
from datamodules.patch_store import Source, open_store
from datamodules.selection import (
    Band,
    ClusterBalanced,
    Descriptor,
    DistributionMatching,
    Highest,
    KCentre,
    Keep,
    Lowest,
    PSNRBicubic,
    SobelMagnitude,
    Threshold,
    keep,
    pool_of,
)
from datamodules.selection.candidates import Candidates
from datamodules.selection.computed import embed, score
from datamodules.selection.interfaces import Criterion, Pool
from datamodules.selection.keep import as_pairs
from datamodules.selection.selectors.clustered import select_per_class

CPU = torch.device("cpu")
SCALE = 4


@pytest.fixture(scope="module")
def made() -> list[DistilledPatch]:
    """60 patches of 32 pixels, smooth to noisy, in three pseudo-classes."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 1, (60, 32, 32, 3)) * random.gamma(2.0, 12.0, 60)[:, None, None, None]
    ramps = np.linspace(0, 1, 32)[:, None, None] * random.uniform(-90, 90, (60, 1, 1, 3))
    pixels = (noise + ramps + 128).clip(0, 255).astype(np.uint8)
    return [DistilledPatch(hr, None, {"pseudo_label": number % 3, "seed": number}) for number, hr in enumerate(pixels)]


def plain_psnr(patch: DistilledPatch) -> float:
    """Over all three channels, in NumPy."""
    hr = torch.from_numpy(patch.hr).permute(2, 0, 1)
    error = hr.double() - upscale(downscale(hr, SCALE), SCALE).double()
    return float(10 * np.log10(255**2 / error.square().mean().item()))


def chosen(rule: Keep, patches: list[DistilledPatch], count: object, **options: object) -> list[int]:
    return rule.choose(iter(patches), count, 0, SCALE, CPU, **options).tolist()


@pytest.mark.parametrize(("selector", "sign"), [(Lowest(), 1), (Highest(), -1)])
def test_keeping_by_criterion_is_sorting_the_scores(made, selector, sign):
    order = np.argsort([sign * plain_psnr(patch) for patch in made])
    assert chosen(Keep(PSNRBicubic("rgb"), selector=selector), made, 7) == order[:7].tolist()


def test_positions_are_those_before_the_filters(made):
    """Of the upper half of what lies above 15 dB, the lowest."""
    scores = np.array([plain_psnr(patch) for patch in made])
    rule = Keep(PSNRBicubic("rgb"), [Threshold(above=15), Band(0.5, 1)], selector=Lowest())
    above = scores[scores > 15]
    half = np.flatnonzero(scores >= np.quantile(above, 0.5, method="nearest"))
    assert len(above) < len(made)
    assert chosen(rule, made, 5) == half[np.argsort(scores[half])][:5].tolist()


def test_the_default_is_distinct_patches_at_random(made):
    first, again = chosen(Keep(), made, 20), chosen(Keep(), made, 20)
    assert first == again
    assert len(set(first)) == 20
    assert first != sorted(first)
    assert first != Keep().choose(made, 20, 1, SCALE, CPU).tolist()


def test_a_stored_lr_is_scored_instead_of_bicubic(made):
    """The one patch whose LR says nothing of it is the one that bicubic brings back worst."""
    stored = [replace(patch, lr=np.full((8, 8, 3), 128, np.uint8)) if n == 4 else patch for n, patch in enumerate(made)]
    assert chosen(Keep(selector=Lowest()), made, 1) != [4]
    stored[4] = replace(stored[4], lr=np.zeros((8, 8, 3), np.uint8))
    assert chosen(Keep(selector=Lowest()), stored, 1) == [4]


def test_batches_are_bounded_of_one_size_and_in_order(made, monkeypatch):
    monkeypatch.setattr(keep, "BATCH_PIXELS", 4 * 32 * 32)
    small = [replace(patch, hr=patch.hr[:16, :16]) for patch in made[:3]]
    unlabelled = DistilledPatch(made[0].hr)
    batches = list(as_pairs([*made[:6], *small, *made[6:8], unlabelled], SCALE))
    assert [tuple(batch.hr.shape[::3]) for batch in batches] == [(4, 32), (2, 32), (3, 16), (3, 32)]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(12))
    assert torch.equal(batches[2].lr, downscale(batches[2].hr, SCALE))
    assert np.array_equal(batches[1].hr[1].permute(1, 2, 0).numpy(), made[5].hr)
    assert [None if batch.label is None else batch.label.tolist() for batch in batches] == [
        [0, 1, 2, 0],
        [1, 2],
        [0, 1, 2],
        None,
    ]


def test_patches_are_streamed(made, monkeypatch):
    """The criterion sees a batch before the next one is read."""
    monkeypatch.setattr(keep, "BATCH_PIXELS", 10 * 32 * 32)
    read, waiting = 0, []

    def stream():
        nonlocal read
        for patch in made:
            read += 1
            yield patch

    class Watching(SobelMagnitude):
        def __call__(self, pairs):
            waiting.append(read - int(pairs.index[-1]) - 1)
            return super().__call__(pairs)

    Keep(Watching()).choose(stream(), 1, 0, SCALE, CPU)
    assert waiting == [0] * 6


def test_scores_and_vectors_are_those_of_candidates(photographs, tmp_path):
    folder = photographs("a.png", "b.png", size=(64, 64))
    store = open_store([Source(path.name, path) for path in sorted(folder.iterdir())], SCALE, tmp_path / "cache")
    candidates = Candidates(store, [0, 1], 32, 32)
    everything = np.arange(len(candidates))
    pool = pool_of(PSNRBicubic(), Descriptor(), candidates.batches(everything, "reading"), CPU)
    np.testing.assert_array_equal(pool.scores, score(PSNRBicubic(), candidates, tmp_path, CPU))
    np.testing.assert_array_equal(pool.features, embed(Descriptor(), candidates, everything, tmp_path, CPU))
    assert pool.labels is None


def plain_points(pool: Pool, reference: Pool, components: int) -> np.ndarray:
    """Coordinates as DistributionMatching documents them, by scikit-learn's PCA and SciPy's ranks."""
    others, own = reference.features.astype(np.float64), pool.features.astype(np.float64)
    spread = others.std(axis=0) > 1e-6
    mean, deviation = others[:, spread].mean(axis=0), others[:, spread].std(axis=0)
    others, own = (others[:, spread] - mean) / deviation, (own[:, spread] - mean) / deviation
    pca = PCA(components, svd_solver="full").fit(others)
    reduced = pca.transform(own) / np.sqrt(pca.transform(others).var(axis=0).sum())
    ranks = [percentileofscore(reference.scores, one, kind="mean") / 100 - 0.5 for one in pool.scores]
    return np.column_stack([reduced, np.sqrt(12) * np.array(ranks)])


def plain_energy_distance(subset: np.ndarray, targets: np.ndarray) -> float:
    """From all pairs, but for the part that the targets alone decide."""
    return 2 * cdist(subset, targets).mean() - cdist(subset, subset).mean()


def test_matching_real_patches_is_greedy_on_the_energy_distance_to_them(made):
    rule = Keep(SobelMagnitude(), selector=DistributionMatching(components=3, sweeps=0), match_real=True)
    pool, real = (rule.pool(as_pairs(patches, SCALE), CPU) for patches in (made, made[::4]))
    points, targets = plain_points(pool, real, 3), plain_points(real, real, 3)
    order = chosen(rule, made, 8, real=real)
    for step in range(1, 8):
        others = set(range(len(made))) - set(order[:step])
        best = min(others, key=lambda one: plain_energy_distance(points[[*order[:step], one]], targets))
        assert order[step] == best


def test_matching_real_patches_finds_those_like_them(made):
    """Half of what was made are twins of the real patches, and the real ones are the noisiest."""
    scores = np.array([plain_psnr(patch) for patch in made])
    noisy = [made[number] for number in np.argsort(scores)[:30]]
    rule = Keep(selector=DistributionMatching(), match_real=True)
    real = rule.pool(as_pairs(noisy, SCALE), CPU)
    matched = chosen(rule, made, 15, real=real)
    own = chosen(Keep(selector=DistributionMatching()), made, 15)
    border = np.sort(scores)[29]
    assert np.mean(scores[matched] <= border) > 0.9
    assert np.mean(scores[own] <= border) < 0.7


def test_so_many_of_each_class(made):
    rule = Keep(selector=KCentre())
    each = chosen(rule, made, {0: 4, 1: 4, 2: 4})
    pool = rule.pool(as_pairs(made, SCALE), CPU)
    assert each == select_per_class(KCentre(), pool, 4, 0).tolist()
    uneven = chosen(Keep(filters=[Band(0.1, 1)]), made, {2: 5, 0: 1})
    assert [number % 3 for number in uneven] == [2] * 5 + [0]


def test_each_class_matches_its_own_real_patches(made):
    """As if there were no other classes, made or real."""
    rule = Keep(selector=DistributionMatching(), match_real=True)
    real = rule.pool(as_pairs(made[::2], SCALE), CPU)
    numbers = np.arange(1, len(made), 3)
    alone, theirs = (rule.pool(as_pairs(made[start::step], SCALE), CPU) for start, step in ((1, 3), (4, 6)))
    alone = replace(alone, numbers=numbers, reference=theirs)
    expected = numbers[DistributionMatching().select(alone, 6, derive_seed(0, 1))]
    assert chosen(rule, made, {1: 6}, real=real) == expected.tolist()


class Undefined(Criterion):
    label, complex_when = "nothing", "low"

    def __call__(self, pairs):
        return pairs.hr.float().mean((1, 2, 3)) * float("nan")


@pytest.mark.parametrize(
    ("rule", "count", "message"),
    [
        (Keep(), 61, r"60 patches were made and 60 are left by the filters, but 61 are to be kept; make more"),
        (Keep(filters=[Band(0.5, 1)]), 40, r"60 patches were made and 3\d are left by the filters, but 40"),
        (Keep(), {1: 21}, r"20 patches of pseudo-label 1 were made and 20 are left by the filters, but 21"),
        (Keep(), {5: 1}, r"0 patches of pseudo-label 5 were made and 0 are left"),
        (Keep(filters=[Threshold(below=0)]), 4, r"Threshold\(below=0, above=None\) keeps none of 60"),
        (
            Keep(selector=DistributionMatching(), match_real=True),
            4,
            r"match_real is true but there are no real patches",
        ),
        (Keep(Undefined()), 4, r"Undefined is not a finite number for some patches; use another in keep"),
    ],
)
def test_what_cannot_be_is_one_line(made, rule, count, message):
    with pytest.raises(ValueError, match=message) as caught:
        chosen(rule, made, count)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", [Keep(selector=ClusterBalanced()), Keep()])
def test_missing_pseudo_labels_are_told(made, rule):
    bare = [DistilledPatch(patch.hr) for patch in made]
    with pytest.raises(ValueError, match=r"by pseudo-label .* has no whole number 'pseudo_label' for some"):
        chosen(rule, bare, {0: 2})


def test_nothing_made_is_told():
    with pytest.raises(ValueError, match=r"there are no patches to choose among"):
        chosen(Keep(), [], 1)


def test_real_patches_without_one_of_the_classes_are_told(made):
    rule = Keep(selector=DistributionMatching(), match_real=True)
    real = rule.pool(as_pairs([patch for patch in made if patch.metadata["pseudo_label"] != 1], SCALE), CPU)
    with pytest.raises(ValueError, match=r"there are no real patches of pseudo-label 1 to match"):
        chosen(rule, made, {0: 2, 1: 2}, real=real)


@pytest.mark.parametrize("selector", [None, KCentre(), ClusterBalanced(DistributionMatching())])
def test_a_selector_that_cannot_match_is_refused(selector):
    with pytest.raises(ValueError, match=r"does not look at real patches; set keep\.selector to DistributionMatching"):
        Keep(selector=selector, match_real=True)


def test_it_is_set_from_yaml():
    parser = ArgumentParser()
    parser.add_argument("--keep", type=Keep | None)
    given = {
        "filters": [{"class_path": "datamodules.selection.Band", "init_args": {"low": 0.5, "high": 1.0}}],
        "selector": {"class_path": "datamodules.selection.DistributionMatching"},
        "match_real": True,
    }
    rule = parser.instantiate(parser.parse_object({"keep": given})).keep
    assert isinstance(rule, Keep)
    assert rule.match_real
    assert rule.filters[0].low == 0.5
    assert isinstance(rule.selector, DistributionMatching)
