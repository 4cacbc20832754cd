"""The counter-based generator against splitmix64 in plain Python integers, and its statistics."""

from __future__ import annotations

import hashlib

import pytest
import torch

from datamodules.augmentation.counter_rng import derive_seed, symmetric_beta, uniform

MASK = 2**64 - 1


def splitmix64(state: int, position: int) -> int:
    """Output number `position`, by running S. Vigna's sequential splitmix64.c."""
    for _ in range(position + 1):
        state = (state + 0x9E3779B97F4A7C15) & MASK
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_reference_generator_is_the_published_one():
    # First outputs for seed 1234567, as tested by https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    outputs = [splitmix64(1234567, position) for position in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 1234567, 2**63, 2**64 - 1])
@pytest.mark.parametrize("stream", [0, 5, "left-right"])
def test_uniform_equals_plain_integers(seed, stream):
    index = [0, 1, 2, 1000]
    digest = hashlib.blake2b(str(stream).encode(), digest_size=8).digest()
    jump = int.from_bytes(digest, "little") if isinstance(stream, str) else stream
    # Position n of a generator is position 0 of the one seeded n gammas later.
    key = splitmix64((seed + jump * 0x9E3779B97F4A7C15) & MASK, 0)
    expected = [[(splitmix64(splitmix64(key, i), draw) >> 40) / 2**24 for draw in range(3)] for i in index]
    assert uniform(seed, stream, torch.tensor(index), count=3).tolist() == expected
    assert derive_seed(seed, stream) % 2**64 == key


def test_golden_values():
    # Computed with plain integers. Fixed for ever: after a change, resumed runs would differ from what they continue.
    words = uniform(7, "apply", torch.tensor([0, 1, 2**40]), count=2) * 2**24
    assert words.long().tolist() == [[7062273, 5851694], [6387222, 13947272], [7165646, 15697141]]


def test_values_do_not_depend_on_batch_or_count():
    index = torch.arange(100)
    whole = uniform(3, "x", index, count=4)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(uniform(3, "x", index[order], count=4), whole[order])
    assert torch.equal(uniform(3, "x", index.view(20, 5), count=2), whole[:, :2].view(20, 5, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_values_are_the_same_on_the_gpu():
    index = torch.arange(1000)
    assert torch.equal(uniform(3, "x", index.cuda(), count=4).cpu(), uniform(3, "x", index, count=4))


def test_numbers_are_uniform():
    stats = pytest.importorskip("scipy.stats")
    numbers = uniform(0, "x", torch.arange(50_000), count=2).double()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(1 / 2, abs=4 * (1 / 12 / 100_000) ** 0.5)
    assert numbers.var().item() == pytest.approx(1 / 12, abs=4 * (1 / 180 / 100_000) ** 0.5)
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("other", ["stream", "stream number", "seed", "neighbour", "draw"])
def test_related_numbers_are_independent(other):
    stats = pytest.importorskip("scipy.stats")
    index = torch.arange(40_000)
    numbers, related = {
        "stream": (uniform(0, "a", index), uniform(0, "b", index)),
        "stream number": (uniform(0, 0, index), uniform(0, 1, index)),
        "seed": (uniform(0, "a", index), uniform(1, "a", index)),
        "neighbour": (uniform(0, "a", index), uniform(0, "a", index + 1)),
        "draw": uniform(0, "a", index, count=2).split(1, dim=1),
    }[other]
    cells = (numbers * 8).long() * 8 + (related * 8).long()
    assert stats.chisquare(torch.bincount(cells.flatten(), minlength=64).numpy()).pvalue > 0.001
    assert abs(stats.pearsonr(numbers.flatten().numpy(), related.flatten().numpy()).statistic) < 4 / 200


@pytest.mark.parametrize("concentration", [0.5, 1.0, 1.2, 8.0])
def test_symmetric_beta_follows_scipys(concentration):
    stats = pytest.importorskip("scipy.stats")
    numbers = symmetric_beta(concentration, 1, "share", torch.arange(20_000))
    assert numbers.min() >= 0
    assert numbers.max() <= 1
    assert stats.kstest(numbers.double().numpy(), stats.beta(concentration, concentration).cdf).pvalue > 0.01


def test_symmetric_beta_is_finite_at_the_edges():
    assert symmetric_beta(1e-3, 1, "share", torch.arange(20_000)).isfinite().all()
    assert symmetric_beta(1e6, 1, "share", torch.arange(20_000)).isfinite().all()
