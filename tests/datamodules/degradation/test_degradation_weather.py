"""Rain and haze: the models of blending and scattering on flat images, and what streaks and depth look like."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from datamodules.degradation import Haze, RainStreaks

BLACK, WHITE = torch.zeros(8, 3, 96, 96), torch.ones(8, 3, 96, 96)
INDEX = torch.arange(8)


def test_streaks_are_blended_by_screen():
    rain, clean = RainStreaks(), torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    streaks = rain(BLACK, INDEX, 1)
    assert torch.equal(streaks[:, :1].expand(-1, 3, -1, -1), streaks)  # grey
    torch.testing.assert_close(rain(clean, INDEX, 1), clean + streaks - clean * streaks)
    assert torch.equal(rain(WHITE, INDEX, 1), WHITE)


@pytest.mark.parametrize("density", [0.01, 0.2])
def test_drops_of_one_pixel_are_as_dense_and_bright_as_asked(density):
    drops = RainStreaks(density, length=1, brightness=0.6)(BLACK, INDEX, 1)[:, 0]
    share = (drops > 0).float().mean().item()
    assert share == pytest.approx(density, abs=4 * math.sqrt(density / drops.numel()))
    assert drops[drops > 0].mean().item() == pytest.approx(0.3, abs=0.03)  # uniform over (0, 0.6]
    assert drops.max() <= 0.6


def test_no_density_is_no_rain():
    assert torch.equal(RainStreaks(density=0)(BLACK, INDEX, 1), BLACK)


@pytest.mark.parametrize(("length", "angle"), [(15, 0), (25, -30), (21, 20)])
def test_streaks_have_the_length_and_angle_asked(length, angle):
    """By the covariance of single streaks: the variance along a line of n pixels is (n^2 - 1) / 12."""
    rain = RainStreaks(0.00003, length=length, angle=angle)(torch.zeros(200, 3, 96, 96), torch.arange(200), 1)
    streaks = single_streaks(rain[:, 0].double().numpy())
    assert len(streaks) > 20
    covariances = [np.cov(np.nonzero(streak), ddof=0, aweights=streak[streak > 0]) for streak in streaks]
    variances, axes = np.linalg.eigh(np.median(covariances, axis=0))  # the median leaves out the few that overlap
    down, right = axes[:, 1] * np.sign(axes[0, 1])
    assert math.degrees(math.atan2(right, down)) == pytest.approx(angle, abs=1.5)
    assert math.sqrt(12 * variances[1] + 1) == pytest.approx(length, rel=0.03)
    assert variances[0] < 0.3  # thin


def single_streaks(rain: np.ndarray) -> list[np.ndarray]:
    """Images of what is connected in rain (B, H, W), without what touches a border."""
    streaks = []
    for one in rain:
        labels, count = ndimage.label(one, np.ones((3, 3)))
        parts = [np.where(labels == number, one, 0) for number in range(1, count + 1)]
        streaks += [part for part in parts if not part[[0, -1]].any() and not part[:, [0, -1]].any()]
    return streaks


def test_streaks_come_in_from_outside():
    rain = RainStreaks(0.001, length=15, angle=0)(torch.zeros(300, 3, 48, 48), torch.arange(300), 1)
    covered = (rain[:, 0] > 1e-3).float().mean((0, 2))  # share of each row
    assert covered.mean().item() == pytest.approx(1 - (1 - 0.001) ** 15, rel=0.1)
    assert covered[0].item() == pytest.approx(covered.mean().item(), rel=0.2)


def scattering(haze: Haze, index: torch.Tensor, size: tuple[int, int] = (96, 96)) -> tuple[torch.Tensor, torch.Tensor]:
    """Transmission and airlight of I = J t + A (1 - t), from J = 0 and J = 1: t = I1 - I0, A = I0 / (1 - t)."""
    shape = (len(index), 3, *size)
    on_black, on_white = haze(torch.zeros(shape), index, 1), haze(torch.ones(shape), index, 1)
    transmission = on_white - on_black
    return transmission, on_black / (1 - transmission)


def test_haze_scatters_with_the_given_airlight_and_beta():
    thin, airlight = scattering(Haze(beta=0.7, airlight=0.8), INDEX)
    dense, _ = scattering(Haze(beta=1.4, airlight=0.8), INDEX)
    far = thin < 0.95  # nearer, airlight is a quotient of rounding errors
    torch.testing.assert_close(airlight[far], torch.full_like(airlight[far], 0.8), atol=1e-4, rtol=0)
    torch.testing.assert_close(dense, thin**2, atol=1e-5, rtol=0)  # the same depth: exp(-2 beta d) = exp(-beta d)^2


def test_haze_on_a_flat_image():
    flat = torch.full((8, 3, 96, 96), 0.3)
    haze = Haze(beta=1.0, airlight=0.9)
    transmission, _ = scattering(haze, INDEX)
    torch.testing.assert_close(haze(flat, INDEX, 1), 0.3 * transmission + 0.9 * (1 - transmission))


def test_depth_is_smooth_and_recedes_upwards():
    transmission, _ = scattering(Haze(beta=1.0, airlight=1.0), torch.arange(12), (320, 320))
    depth = -transmission[:, 0].log()
    assert depth.min() > -1e-5
    assert depth.max() < 1 + 1e-5
    rows = depth.mean((0, 2))
    assert rows[0] > 0.8
    assert rows[-1] < 0.2
    steepest = (1 + 4 * 0.15 * 2 * math.pi) / 320  # gradient and four waves, all at their steepest in one place
    assert depth.diff(dim=1).abs().max() <= steepest * 1.01
    assert (depth[0] - depth[1]).abs().max() > 0.1  # every scene has a depth of its own


def test_patches_are_windows_of_a_scene():
    transmission, _ = scattering(Haze(beta=1.0, airlight=1.0), torch.arange(40), (32, 32))
    depth = -transmission[:, 0].log()
    within, between = depth.flatten(1).std(1).mean(), depth.mean((1, 2)).std()
    assert within < 0.1
    assert between > 0.2


def test_no_scattering_is_no_haze():
    clean = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Haze(beta=0)(clean, INDEX, 0), clean)


def test_ranges_are_drawn_per_sample():
    _, airlight = scattering(Haze(beta=1.5), torch.arange(60), (320, 16))
    top = airlight[:, 0, 0, 0]
    assert 0.7 <= top.min() < 0.75
    assert 0.95 < top.max() <= 1.0001
