"""What is to be sampled: budgets counted by hand, and requests that stay the same when a budget grows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from datamodules.selection import Budget
from lightning_modules.requests import Request, quotas, requests

SIZES = np.array([50, 30, 20])
LABELS = np.repeat([0, 1, 2], SIZES)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(ipc=10), [10, 10, 10]),
        (Budget(ipc=40), [40, 40, 40]),  # more than there are real patches of class 2: they are made
        (Budget(patches=10), [5, 3, 2]),
        (Budget(patches=7), [4, 2, 1]),  # 3.5, 2.1, 1.4: the largest remainder gets the seventh
        (Budget(patches=1), [1, 0, 0]),
        (Budget(percent=1.0), [2, 1, 1]),  # 25,600 of 2,560,000 pixels are 4 patches of 80: 2, 1.2, 0.8
        (Budget(percent=0.001), [1, 0, 0]),  # never nothing
    ],
)
def test_budgets_by_hand(budget, expected):
    assert quotas(budget, SIZES, full_pixels=2_560_000.0, side=80).tolist() == expected


def test_a_class_without_members_gets_nothing():
    sizes = np.array([3, 0, 5])
    for budget in (Budget(ipc=2), Budget(patches=4)):
        assert quotas(budget, sizes, None, 8)[1] == 0
    wanted = quotas(Budget(ipc=2), sizes, None, 8)
    assert {request.label for request in requests(wanted, 3, np.repeat([0, 2], [3, 5]), seed=0)} == {0, 2}


def test_a_budget_that_says_nothing_is_refused():
    with pytest.raises(ValueError, match=r"model\.budget is not set; give ipc"):
        quotas(Budget(), SIZES, None, 8)
    with pytest.raises(ValueError, match=r"percent is of photographs that are not known here"):
        quotas(Budget(percent=1.0), SIZES, None, 8)


def test_each_class_gets_its_number_of_samples_with_real_patches_of_its_own():
    made = requests(np.array([4, 0, 50]), 1, LABELS, seed=0)
    assert Counter(request.label for request in made) == {0: 4, 2: 50}
    assert [request.number for request in made] == [*range(4), *range(50)]
    assert all(LABELS[request.real] == request.label for request in made)
    assert len(set(made)) == len(made)


def test_real_patches_take_turns_in_random_order():
    """No patch comes a second time before every other one of its class has."""
    real = [request.real for request in requests(np.array([0, 0, 50]), 1, LABELS, seed=0)]
    members = set(range(80, 100))
    assert set(real[:20]) == set(real[20:40]) == members
    assert len(set(real[40:])) == 10
    assert real[:20] != sorted(real[:20])
    assert real[:20] != [request.real for request in requests(np.array([0, 0, 20]), 1, LABELS, seed=1)]


@pytest.mark.parametrize(("oversample", "expected"), [(1, 3), (1.5, 5), (2, 6), (4.0, 12)])
def test_more_are_made_than_kept(oversample, expected):
    assert len(requests(np.array([3]), oversample, LABELS, seed=0)) == expected


def test_a_larger_budget_per_class_or_more_to_choose_from_contains_the_smaller():
    small = requests(quotas(Budget(ipc=3), SIZES, None, 8), 1, LABELS, seed=5)
    for ipc, oversample in ((4, 1), (3, 2), (30, 1.5)):
        assert set(small) < set(requests(quotas(Budget(ipc=ipc), SIZES, None, 8), oversample, LABELS, seed=5))


def test_a_sample_of_a_class_is_the_same_in_every_budget():
    """A request has nothing of the budget: what two budgets share is sampled once."""
    by_name = {}
    for patches in (1, 5, 17, 60):
        for request in requests(quotas(Budget(patches=patches), SIZES, None, 8), 1, LABELS, seed=5):
            name = request.label, request.number
            assert by_name.setdefault(name, request) == request
    assert len(by_name) == 60


def test_requests_are_plain_values():
    assert requests(np.array([1]), 1, np.array([0]), seed=0) == [Request(0, 0, 0)]
    assert all(type(value) is int for value in vars(requests(np.array([2]), 1, LABELS, seed=0)[1]).values())
