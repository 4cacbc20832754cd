"""Noise of sensors, and photographs in the dark, against the formulas of their moments and scipy's distributions."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from datamodules.degradation import GaussianNoise, LowLight, PoissonNoise

INDEX = torch.arange(4)


def flat(value: float) -> torch.Tensor:
    return torch.full((4, 3, 64, 64), value)


def test_gaussian_noise_is_normal_with_sigma_in_levels():
    noise = (GaussianNoise(25)(flat(0.5), INDEX, 1) - 0.5) * 255
    assert stats.kstest(noise.flatten().numpy(), "norm", (0, 25)).pvalue > 0.001


def test_sigma_25_is_20_17_db():
    error = GaussianNoise(25)(flat(0.5), INDEX, 2) - 0.5
    psnr = -10 * torch.log10((error**2).mean()).item()
    assert psnr == pytest.approx(20 * math.log10(255 / 25), abs=0.05)


def test_gaussian_noise_is_independent_between_channels_pixels_and_samples():
    noise = GaussianNoise(25)(flat(0.5), INDEX, 1) - 0.5
    neighbours = torch.stack([noise[..., :-1].flatten(), noise[..., 1:].flatten()])
    for values in (noise.transpose(0, 1).flatten(1), noise.flatten(1), neighbours):
        correlation = torch.corrcoef(values) - torch.eye(len(values))
        assert correlation.abs().max() < 4 / math.sqrt(values.shape[1])  # four standard errors


def test_blind_noise_has_one_sigma_per_sample():
    noise = (GaussianNoise([5, 50])(torch.full((200, 3, 24, 24), 0.5), torch.arange(200), 1) - 0.5) * 255
    sigma = noise.flatten(1).std(1)
    # Measured sigmas are 1.7 % off; clipping at 127.5 levels takes another 0.6 % from the largest.
    assert stats.kstest(sigma.numpy(), "uniform", (5, 45)).pvalue > 0.001
    one_more = (GaussianNoise([5, 50])(flat(0.5), torch.full((4,), 7), 1) - 0.5) * 255
    torch.testing.assert_close(one_more.flatten(1).std(1), sigma[7].expand(4), rtol=0.06, atol=0)


def test_noise_is_clipped():
    assert (GaussianNoise(50)(flat(0.0), INDEX, 1) == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("value", "photons"), [(0.5, 100), (0.2, 1000), (0.05, 40)])
def test_photons_have_mean_v_and_variance_v_over_photons(value, photons):
    noisy = PoissonNoise(photons)(flat(value), INDEX, 1).double()
    error = math.sqrt(value / photons / noisy.numel())
    assert noisy.mean().item() == pytest.approx(value, abs=4 * error)
    assert noisy.var().item() == pytest.approx(value / photons, rel=0.04)


def test_photons_are_counted():
    counts = PoissonNoise(10)(flat(0.2), INDEX, 1).double() * 10
    torch.testing.assert_close(counts, counts.round(), atol=1e-5, rtol=0)
    observed = counts.round().long().flatten().bincount(minlength=11)[:8].double()
    expected = torch.tensor(stats.poisson.pmf(range(8), 2)) * counts.numel()
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 0.001


def test_fewer_photons_of_a_range_are_noisier():
    noise = PoissonNoise([20, 500])(torch.full((50, 3, 32, 32), 0.4), torch.arange(50), 1).flatten(1).std(1)
    assert math.sqrt(0.4 / 500) * 0.9 < noise.min() < math.sqrt(0.4 / 400)
    assert math.sqrt(0.4 / 60) < noise.max() < math.sqrt(0.4 / 20) * 1.1


def test_darkness_is_gain_times_a_power():
    clean = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    dark = LowLight(gamma=2.5, gain=0.6, photons=1e9, sigma=0.0)(clean, torch.arange(2), 0)
    torch.testing.assert_close(dark, 0.6 * clean**2.5, atol=2e-4, rtol=0)


def test_noise_in_the_dark_is_of_photons_and_electronics():
    dark = LowLight(gamma=2.0, gain=0.8, photons=150, sigma=6.0)(flat(0.7), INDEX, 0).double()
    mean = 0.8 * 0.7**2
    assert dark.mean().item() == pytest.approx(mean, abs=0.001)
    assert dark.var().item() == pytest.approx(mean / 150 + (6 / 255) ** 2, rel=0.03)


def test_darkness_differs_between_samples():
    mean = LowLight()(torch.full((60, 3, 16, 16), 0.5), torch.arange(60), 0).mean((1, 2, 3))
    darkest, brightest = 0.5 * 0.5**3.5, 1.0 * 0.5**2  # of the default ranges
    assert darkest * 0.9 < mean.min() < 0.08
    assert 0.18 < mean.max() < brightest * 1.05
