"""A choice against the steps done by hand, its cache, and the budgets."""

from __future__ import annotations

import importlib
import linecache
import sys
from dataclasses import replace

import numpy as np
import pytest

from datamodules.selection import (
    Band,
    Budget,
    ClusterBalanced,
    Descriptor,
    GreyEntropy,
    Highest,
    KCentre,
    PseudoLabels,
    Random,
    Rule,
    SobelMagnitude,
    Threshold,
    choose,
)
from datamodules.selection.candidates import Candidates
from datamodules.selection.interfaces import Pool

SIZE = 16


class Scaled(Descriptor):
    """The descriptor, with a setting."""

    def __init__(self, factor: float) -> None:
        self.factor = factor


@pytest.fixture
def candidates(make_store) -> Candidates:
    """64 patches of four smooth pictures."""
    return Candidates(make_store, [0, 1, 2, 3], SIZE, SIZE)


@pytest.fixture
def make_store(photographs, tmp_path):
    from datamodules.patch_store import Source, open_store

    folder = photographs("a.png", "b.png", "c.png", "d.png", size=(64, 64))
    return open_store([Source(path.name, path) for path in sorted(folder.iterdir())], 4, tmp_path / "cache")


@pytest.fixture
def rule() -> Rule:
    return Rule(SobelMagnitude(), (), Descriptor(), None, Random(), Budget(patches=5), seed=0)


def test_the_highest_of_a_band_by_hand(candidates, rule, tmp_path):
    """Scores by the criterion itself; order, quantiles and choice by NumPy."""
    rule = replace(rule, filters=[Band(0.25, 0.75)], selector=Highest())
    selection = choose(candidates, rule, tmp_path)
    scores = SobelMagnitude()(candidates.pairs(np.arange(64))).numpy()
    np.testing.assert_allclose(selection.scores, scores, rtol=1e-6)
    low, high = np.quantile(scores, [0.25, 0.75])
    band = [number for number in np.argsort(-scores) if low <= scores[number] <= high]
    assert selection.kept.tolist() == sorted(band)
    assert selection.chosen.tolist() == band[:5]
    assert selection.labels is None
    assert selection.rule == "SobelMagnitude() -> Band(low=0.25, high=0.75) -> Highest()"


def test_filters_apply_one_after_the_other(candidates, rule, tmp_path):
    """The upper half of the upper half is the upper quarter, 16 of 64."""
    twice = replace(rule, filters=[Band(0.5, 1), Band(0.5, 1)], budget=Budget())
    scores = SobelMagnitude()(candidates.pairs(np.arange(64))).numpy()
    assert set(choose(candidates, twice, tmp_path).chosen) == set(np.argsort(-scores)[:16])


def test_budget_in_percent_counts_pixels_of_whole_photographs(candidates, rule, tmp_path):
    selection = choose(candidates, replace(rule, budget=Budget(percent=10)), tmp_path)
    assert selection.budget.images == round(0.1 * 4 * 64 * 64 / SIZE**2) == 6
    assert selection.budget.pixels == 6 * SIZE**2
    assert selection.budget.percent == pytest.approx(100 * 6 / 64)


def test_ipc_takes_as_many_of_each_class(candidates, rule, tmp_path):
    rule = replace(rule, budget=Budget(ipc=2), pseudo_labels=PseudoLabels(3))
    selection = choose(candidates, rule, tmp_path)
    assert sorted(selection.labels) == [0, 0, 1, 1, 2, 2]
    assert selection.class_sizes.sum() == 64
    assert -1 <= selection.silhouette <= 1
    assert selection.rule.endswith("Random() in 3 classes")


def test_no_budget_keeps_what_filters_leave(candidates, rule, tmp_path):
    selection = choose(candidates, replace(rule, filters=[Band(0.9, 1)], budget=Budget()), tmp_path)
    assert selection.chosen.tolist() == selection.kept.tolist()


def test_an_outcome_is_read_again(candidates, rule, tmp_path, monkeypatch):
    rule = replace(rule, selector=KCentre(), pseudo_labels=PseudoLabels(3))
    first = choose(candidates, rule, tmp_path)
    monkeypatch.setattr(KCentre, "select", lambda *_: pytest.fail("chosen again"))
    monkeypatch.setattr(Descriptor, "__call__", lambda *_: pytest.fail("embedded again"))
    monkeypatch.setattr(SobelMagnitude, "score", lambda *_: pytest.fail("scored again"))
    again = choose(candidates, rule, tmp_path)
    np.testing.assert_array_equal(again.chosen, first.chosen)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert (again.fingerprint, again.budget, again.silhouette) == (first.fingerprint, first.budget, first.silhouette)


CHANGES = [
    {"criterion": GreyEntropy()},
    {"filters": [Band(0.1, 0.9)]},
    {"features": Scaled(2.0)},
    {"pseudo_labels": PseudoLabels(4)},
    {"pseudo_labels": PseudoLabels(3, pca=2)},
    {"selector": Highest()},
    {"selector": ClusterBalanced(shares="proportional")},
    {"budget": Budget(patches=6)},
    {"seed": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_whatever_decides_tells_cached_outcomes_apart(candidates, rule, tmp_path, change):
    rule = replace(rule, features=Scaled(1.0), selector=ClusterBalanced(), pseudo_labels=PseudoLabels(3))
    choose(candidates, rule, tmp_path)
    choose(candidates, replace(rule, **change), tmp_path)
    assert len(list((tmp_path / "selections").glob("*.npz"))) == 2


def test_the_size_of_the_full_set_decides_too(position_store, rule, tmp_path):
    """A photograph without a candidate is part of what a percentage is of."""
    store, rule = position_store([(64, 64), (12, 12)]), replace(rule, budget=Budget(percent=50))
    with_it, without = Candidates(store, [0, 1], SIZE, SIZE), Candidates(store, [0], SIZE, SIZE)
    shares = [choose(candidates, rule, tmp_path).budget.percent for candidates in (without, with_it)]
    assert shares == pytest.approx([100 * 8 * 256 / 4096, 100 * 8 * 256 / (4096 + 144)])


def test_a_users_criterion_is_known_by_its_source(tmp_path, monkeypatch):
    """Editing the formula makes it another criterion; reading it again does not."""
    source = """
from datamodules.selection.interfaces import Criterion
class Brightness(Criterion):
    label, complex_when = "brightness", "high"
    def __call__(self, pairs):
        return pairs.hr.float().mean((1, 2, 3))
"""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "users_own.py"
    identities = []
    for text in (source, source, source.replace("return ", "return -")):
        file.write_text(text)
        linecache.checkcache()
        sys.modules.pop("users_own", None)
        importlib.invalidate_caches()
        identities.append(importlib.import_module("users_own").Brightness().identity()["class"])
    sys.modules.pop("users_own")
    assert identities[0] == identities[1] != identities[2]


def test_one_candidate_more_changes_no_other_draw():
    """Of 1,000 candidates 100 are drawn; without one that was not drawn, the same are."""
    chosen = Random().select(Pool(np.zeros(1000), numbers=np.arange(1000)), 100, seed=0)
    missing = next(number for number in range(1000) if number not in chosen)
    others = np.delete(np.arange(1000), missing)
    again = others[Random().select(Pool(np.zeros(999), numbers=others), 100, seed=0)]
    assert again.tolist() == chosen.tolist()


def test_cost_is_on_record(candidates, rule, tmp_path):
    selection = choose(candidates, rule, tmp_path)
    noted = [float(file.read_text()) for file in tmp_path.glob("scores/*.seconds")]
    assert len(noted) == 1
    assert selection.seconds >= noted[0]
    assert selection.record() == {"rule": "SobelMagnitude() -> Random()", "seconds": round(selection.seconds, 3)}


def test_a_damaged_outcome_is_named(candidates, rule, tmp_path):
    choose(candidates, rule, tmp_path)
    (file,) = (tmp_path / "selections").glob("*.npz")
    file.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=rf"{file.name}: damaged; delete this file and run again"):
        choose(candidates, rule, tmp_path)


def test_the_same_seed_makes_the_same_choice(candidates, rule, tmp_path):
    here, elsewhere = (choose(candidates, rule, tmp_path / name) for name in ("here", "elsewhere"))
    np.testing.assert_array_equal(here.chosen, elsewhere.chosen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"budget": Budget(patches=65)},
            r"asks for 65 patches but there are 64 \(of 64 candidates\); lower the budget",
        ),
        (
            {"filters": [Band(0.5, 1)], "budget": Budget(percent=90)},
            r"58 patches but there are 32 \(of 64 candidates\)",
        ),
        ({"filters": [Threshold(below=0)]}, r"below.*0.*5 %.*50 %"),
        (
            {"pseudo_labels": PseudoLabels(65)},
            r"65 pseudo-classes cannot be made of 64 candidates .*classes to at most 64",
        ),
        ({"budget": Budget(ipc=30), "selector": ClusterBalanced()}, r"asks for 210 patches but there are 64"),
        (
            {"budget": Budget(ipc=20), "pseudo_labels": PseudoLabels(3)},
            r"class 2 of 3 has \d+ patches but 20 of each are wanted; ask for at most",
        ),
    ],
)
def test_what_cannot_be_is_one_line(candidates, rule, tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        choose(candidates, replace(rule, **change), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patches": 3, "percent": 1}, r"budget has patches and percent; set one of them and the others to null"),
        ({"percent": 101}, r"budget\.percent is 101; expected a number above 0 and up to 100"),
        ({"ipc": 0}, r"budget\.ipc is 0; expected a number above 0"),
    ],
)
def test_bad_budgets(given, message):
    with pytest.raises(ValueError, match=message):
        Budget(**given)
