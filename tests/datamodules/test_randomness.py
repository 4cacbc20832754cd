"""Noise that follows from seed, stream and number alone."""

from __future__ import annotations

import math

import torch

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.randomness import generators, noise


def test_a_sample_has_its_noise_whatever_lies_beside_it():
    whole = noise(7, "noise", torch.arange(10), (3, 4, 4))
    some = noise(7, "noise", torch.tensor([8, 2, 2]), (3, 4, 4))
    assert torch.equal(some, whole[[8, 2, 2]])
    assert whole.shape == (10, 3, 4, 4)
    assert whole.dtype == torch.float32


def test_noise_is_torchs_own_of_a_derived_seed():
    """Golden: torch.randn of a generator seeded by hand. Changing this changes every run that is resumed."""
    seed = derive_seed(derive_seed(7, "noise"), 3)
    expected = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(noise(7, "noise", torch.tensor([3]), (2, 3))[0], expected)
    assert torch.equal(torch.randn(2, 3, generator=generators(7, "noise", [3])[0]), expected)


def test_seeds_streams_and_numbers_each_give_other_noise():
    drawn = [
        noise(seed, stream, torch.tensor([number]), (16,))
        for seed, stream, number in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (1, "b", 1)]
    ]
    assert len({tuple(one.flatten().tolist()) for one in drawn}) == len(drawn)


def test_noise_is_standard_normal_and_samples_are_unrelated():
    """Within four standard errors of mean 0, variance 1, kurtosis 3 and correlation 0."""
    drawn = noise(0, "noise", torch.arange(400), (256,)).double()
    count = drawn.numel()
    assert abs(drawn.mean()) < 4 / math.sqrt(count)
    assert abs(drawn.var() - 1) < 4 * math.sqrt(2 / count)
    assert abs(drawn.pow(4).mean() - 3) < 4 * math.sqrt(96 / count)
    neighbours = (drawn[1:] * drawn[:-1]).mean()
    assert abs(neighbours) < 4 / math.sqrt(count)


def test_the_global_generator_is_neither_used_nor_moved():
    torch.manual_seed(0)
    first = noise(0, "noise", torch.arange(3), (4,))
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), after)
    assert torch.equal(noise(0, "noise", torch.arange(3), (4,)), first)
