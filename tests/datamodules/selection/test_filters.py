"""Filters against counts done by hand, and their messages."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.selection.filters import Band, Threshold

SCORES = np.array([30.0, 21.0, 23.0, 25.5, 19.0])


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        ({"below": 23}, [False, True, False, False, True]),
        ({"above": 23}, [True, False, False, True, False]),
        ({"below": 26, "above": 19}, [False, True, True, True, False]),
    ],
)
def test_threshold_excludes_its_bounds(bounds, kept):
    assert Threshold(**bounds).keep(SCORES).tolist() == kept


def test_a_threshold_that_keeps_none_gives_the_quantiles():
    scores = np.arange(101) / 2  # the p-th percentile is p / 2
    with pytest.raises(ValueError, match=r"below=-1, above=None.*none of 101") as error:
        Threshold(below=-1).keep(scores)
    assert "0 (0 %), 2.5 (5 %), 12.5 (25 %), 25 (50 %), 37.5 (75 %), 47.5 (95 %), 50 (100 %)" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bounds", [{}, {"below": 20, "above": 20}, {"below": 20, "above": 21}])
def test_a_threshold_that_cannot_keep_anything_is_refused(bounds):
    with pytest.raises(ValueError, match="Threshold"):
        Threshold(**bounds)


@pytest.mark.parametrize(
    ("low", "high", "first", "last"),
    [(0.25, 0.75, 250, 750), (0, 0.95, 0, 950), (0.98, 1, 980, 1000), (0, 1, 0, 1000)],
)
def test_band_keeps_both_its_ends(low, high, first, last):
    scores = np.random.default_rng(0).permutation(1001) / 10  # the quantile q is 100 q
    kept = np.sort(scores[Band(low, high).keep(scores)])
    assert np.allclose(kept, np.arange(first, last + 1) / 10)


@pytest.mark.parametrize("count", range(1, 8))
def test_a_narrow_band_of_few_candidates_is_not_empty(count):
    assert Band(0.4, 0.6).keep(np.arange(count, dtype=np.float64)).any()


def test_band_keeps_equal_scores_alike():
    scores = np.array([1.0, 2.0, 2.0, 2.0, 3.0])
    assert Band(0.5, 0.6).keep(scores).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.75, 0.25), (-0.1, 0.5), (0.5, 25), (float("nan"), 1)])
def test_band_refuses_what_are_no_quantiles(low, high):
    with pytest.raises(ValueError, match="0 <= low < high <= 1"):
        Band(low, high)
