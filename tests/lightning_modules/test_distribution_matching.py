"""Distances of feature distributions, against NumPy in double precision, kernels and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from datamodules.randomness import noise
from lightning_modules.losses import distribution_matching
from lightning_modules.losses.distribution_matching import (
    MatchingTerms,
    draw_frequencies,
    fourier_distance,
    mean_distance,
    mean_pairwise_cosine,
    second_moment_distance,
)


def drawn(samples: int, width: int = 5, seed: int = 0, dtype=torch.float32):
    """Correlated features with a mean."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(samples, width, generator=generator, dtype=dtype)
    return mixed @ torch.randn(width, width, generator=generator, dtype=dtype) + seed + 1


def far_and_wide():
    return drawn(7, seed=0), drawn(4, seed=1)


def test_mean_distance_is_a_sum_over_features():
    real, synthetic = far_and_wide()
    expected = np.sum((real.double().numpy().mean(0) - synthetic.double().numpy().mean(0)) ** 2)
    assert mean_distance(real, synthetic).item() == pytest.approx(expected, rel=1e-5)
    assert mean_distance(torch.zeros(3, 10), torch.full((2, 10), 2.0)).item() == 40


@pytest.mark.parametrize(("real", "synthetic"), [(7, 4), (2, 9), (6, 1), (1, 1)])
def test_second_moment_distance_is_numpys_of_covariances(real, synthetic):
    x, y = drawn(real, seed=0), drawn(synthetic, seed=1)
    covariances = [np.cov(features.double().numpy(), rowvar=False, bias=True) for features in (x, y)]
    expected = np.linalg.norm(covariances[0] - covariances[1]) ** 2
    assert second_moment_distance(x, y).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_second_moment_distance_of_equal_covariances_vanishes():
    """Within the errors that it states, 1e-6 of the squared norms that cancel; means do not count."""
    features = drawn(50, width=200)
    squared_norm = np.linalg.norm(np.cov(features.numpy(), rowvar=False, bias=True)) ** 2
    assert abs(second_moment_distance(features, features + 3).item()) < 4e-6 * squared_norm


def test_wide_features_take_no_square_matrix():
    wide = torch.randn(3, 1_000_000, generator=torch.Generator().manual_seed(0))  # 4 TB if it were made
    assert second_moment_distance(wide, 2 * wide).item() > 0


def test_fourier_distance_by_complex_numbers():
    real, synthetic = far_and_wide()
    frequencies = draw_frequencies(real, 6, seed=0, step=0)
    phi = [np.exp(1j * x.double().numpy() @ frequencies.double().numpy().T).mean(0) for x in (real, synthetic)]
    expected = np.mean(np.abs(phi[0] - phi[1]) ** 2)
    assert fourier_distance(real, synthetic, frequencies).item() == pytest.approx(expected, rel=1e-4)


def test_local_fourier_term_by_a_loop_over_places():
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randn(count, 5, 2, 3, generator=generator) for count in (4, 3)]  # IDC: a vector at each place
    flat = [one.flatten(1) for one in maps]
    places = [torch.stack([image[:, y, x] for image in one for y in range(2) for x in range(3)]) for one in maps]
    terms = MatchingTerms(mean=0.0, fourier=1.0)
    frequencies = draw_frequencies(torch.cat(places), 256, seed=7, step=2)
    phi = [np.exp(1j * x.double().numpy() @ frequencies.double().numpy().T).mean(0) for x in places]
    expected = np.mean(np.abs(phi[0] - phi[1]) ** 2)
    found = terms.of_features(*flat, step=2, seed=7, channels=5)["fourier"].item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_fourier_distance_estimates_the_maximum_mean_discrepancy():
    """By Bochner's theorem, with the Gaussian kernel whose width is the frequencies'."""
    real, synthetic = drawn(20, seed=0), drawn(10, seed=0)[:, [1, 0, 2, 3, 4]]
    both = torch.cat([real, synthetic])
    frequencies = draw_frequencies(both, 20_000, seed=0, step=0)
    variance = 1 / both.var(0, correction=0).sum()
    kernel = torch.exp(-variance * torch.cdist(both, both).square() / 2)
    signs = torch.cat([torch.full((20,), 1 / 20), torch.full((10,), -1 / 10)])
    expected = (signs @ kernel @ signs).item()
    assert fourier_distance(real, synthetic, frequencies).item() == pytest.approx(expected, rel=0.03)


def test_fourier_distance_sees_what_two_moments_do_not():
    """Two samples with equal means and covariances, 1-dimensional: +-1, and 0 with +-sqrt(2)."""
    two = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])
    three = torch.tensor([[-math.sqrt(2)], [0.0], [0.0], [math.sqrt(2)]])
    frequency = torch.tensor([[1.0]])
    expected = (math.cos(1) - (1 + math.cos(math.sqrt(2))) / 2) ** 2
    assert mean_distance(two, three).item() == pytest.approx(0, abs=1e-12)
    assert second_moment_distance(two, three).item() == pytest.approx(0, abs=1e-5)
    assert fourier_distance(two, three, frequency).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_phases_have_unit_variance_at_any_scale(scale):
    features = scale * drawn(50, width=30)
    frequencies = draw_frequencies(features, 4000, seed=0, step=0)
    phases = (features - features.mean(0)) @ frequencies.T
    assert phases.square().mean().item() == pytest.approx(1, rel=0.05)


def test_frequencies_are_a_function_of_seed_and_step():
    features = drawn(6)
    state = torch.get_rng_state()
    first = draw_frequencies(features, 4, seed=1, step=5)
    assert torch.equal(torch.get_rng_state(), state)
    for seed, step in ((1, 6), (2, 5)):
        assert not torch.allclose(first, draw_frequencies(features, 4, seed, step))
    torch.rand(3)
    assert torch.equal(first, draw_frequencies(features, 4, seed=1, step=5))


def test_directions_are_drawn_once_for_the_classes_of_a_step(monkeypatch):
    steps = []
    monkeypatch.setattr(distribution_matching, "noise", lambda *args: (steps.append(args[2].tolist()), noise(*args))[1])
    terms = MatchingTerms(fourier=1.0)
    for step in (11, 12):
        for real, synthetic in ((drawn(7), drawn(4, seed=1)), (drawn(5, seed=2), drawn(3, seed=3))):
            terms.of_features(real, synthetic, step, seed=7)
    assert steps == [[11], [12]]


def test_features_without_spread_are_at_no_distance():
    same = torch.full((3, 4), 7.0)
    frequencies = draw_frequencies(same, 10, seed=0, step=0)
    assert frequencies.isfinite().all()
    assert fourier_distance(same, same[:1], frequencies).item() == 0


def test_mean_pairwise_cosine_over_all_pairs():
    vectors = drawn(6)
    pairs = [torch.cosine_similarity(*pair, dim=0) for pair in itertools.combinations(vectors.double(), 2)]
    assert mean_pairwise_cosine(vectors).item() == pytest.approx(torch.stack(pairs).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[1.0, 2.0], [3.0, 6.0]], 1.0),
        ([[1.0, 0.0], [-2.0, 0.0]], -1.0),
        ([[1.0, 0.0], [0.0, 3.0]], 0.0),
        ([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], 1 / 3),  # one pair of three
        ([[1.0, 2.0]], 0.0),
    ],
)
def test_mean_pairwise_cosine_of_known_directions(vectors, expected):
    assert mean_pairwise_cosine(torch.tensor(vectors)).item() == pytest.approx(expected, abs=1e-6)


def test_zero_vectors_have_no_gradient_and_leave_the_others_theirs():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], requires_grad=True)
    mean_pairwise_cosine(vectors).backward()
    assert torch.equal(vectors.grad[2], torch.zeros(2))
    # of (1, 0) with (1, 1) / sqrt(2), a third of the pairs: the part of that across (1, 0)
    torch.testing.assert_close(vectors.grad[0], torch.tensor([0.0, 1 / math.sqrt(2) / 3]))


def test_a_single_vector_is_differentiable():
    """One latent per class is a published setting."""
    vector = torch.tensor([[3.0, 4.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(mean_pairwise_cosine(vector), vector)
    torch.testing.assert_close(gradient, torch.zeros(1, 2), rtol=0, atol=1e-6)


FREQUENCIES = torch.randn(8, 5, generator=torch.Generator().manual_seed(2)) / 5


def plain_covariances(x, y):
    return torch.dist(torch.cov(x.T, correction=0), torch.cov(y.T, correction=0)) ** 2


def plain_fourier(x, y):
    phi = [torch.exp(1j * (features @ FREQUENCIES.double().T)).mean(0) for features in (x, y)]
    return (phi[0] - phi[1]).abs().square().mean()


@pytest.mark.parametrize(
    ("distance", "plain"),
    [
        (mean_distance, lambda x, y: torch.dist(x.mean(0), y.mean(0)) ** 2),
        (second_moment_distance, plain_covariances),
        (lambda x, y: fourier_distance(x, y, FREQUENCIES), plain_fourier),
    ],
    ids=["mean", "second moment", "fourier"],
)
def test_gradients_are_those_of_the_plain_formula_in_double_precision(distance, plain):
    features = [each.requires_grad_() for each in far_and_wide()]
    exact = [each.detach().double().requires_grad_() for each in features]
    expected = torch.autograd.grad(plain(*exact), exact)
    for gradient, wanted in zip(torch.autograd.grad(distance(*features), features), expected, strict=True):
        torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_autocast_changes_nothing():
    real, synthetic = drawn(30, 100, seed=0), drawn(20, 100, seed=1)
    terms = MatchingTerms(1.0, 1.0, 1.0, 0.0, 1.0)
    expected = terms.of_features(real, synthetic, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert terms.of_features(real, synthetic, 3) == expected


def test_terms_are_weighted_and_only_those_that_are_on():
    real, synthetic = far_and_wide()
    assert MatchingTerms().of_features(real, synthetic, 0).keys() == {"mean"}
    terms = MatchingTerms(mean=0.5, second_moment=2.0, fourier=3.0, latent_diversity=5.0, feature_diversity=7.0)
    losses = terms.of_features(real, synthetic, step=4, seed=9)
    frequencies = draw_frequencies(torch.cat([real, synthetic]), 256, seed=9, step=4)
    assert losses == {
        "mean": 0.5 * mean_distance(real, synthetic),
        "second_moment": 2 * second_moment_distance(real, synthetic),
        "fourier": 3 * fourier_distance(real, synthetic, frequencies),
        "feature_diversity": 7 * mean_pairwise_cosine(synthetic),
    }


@pytest.mark.parametrize("key", ["mean", "second_moment", "fourier", "latent_diversity", "feature_diversity"])
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_out_of_range_are_refused(key, weight):
    with pytest.raises(ValueError, match=rf"model\.matching\.{key} is {weight}; expected 0 \(off\) or more"):
        MatchingTerms(**{key: weight})


def test_matching_nothing_is_refused():
    with pytest.raises(ValueError, match=r"weights of 0 for mean, second_moment and fourier"):
        MatchingTerms(mean=0.0)
