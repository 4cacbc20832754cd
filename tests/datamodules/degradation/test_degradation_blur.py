"""Blurs against scipy.ndimage, whose mode "reflect" doubles the edge pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from datamodules.degradation import GaussianBlur, MotionBlur


def picture(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("sigma", [0.4, 1.6, 3.0])
@pytest.mark.parametrize("size", [(31, 40), (5, 3)])  # the second is smaller than the kernel
def test_gaussian_is_scipys(sigma, size):
    clean = picture(*size)
    expected = ndimage.gaussian_filter(
        clean.double().numpy(), sigma, mode="reflect", radius=math.ceil(4 * sigma), axes=(-2, -1)
    )
    np.testing.assert_allclose(GaussianBlur(sigma)(clean, torch.arange(1), 0).numpy(), expected, atol=2e-6)


def test_gaussian_of_each_sample_has_a_width_of_its_own():
    impulse = torch.zeros(40, 3, 41, 41)
    impulse[:, :, 20, 20] = 1
    response = GaussianBlur([1.0, 4.0])(impulse, torch.arange(40), 0)[:, 0]
    steps = torch.arange(-20.0, 21)
    sigma = (response.sum(1) * steps**2).sum(1).sqrt()  # second moment of the impulse response
    assert sigma.min() > 1
    assert sigma.max() < 4.01
    assert sigma.min() < 1.5
    assert sigma.max() > 3.5


def test_a_width_of_nothing_changes_nothing():
    clean = picture(12, 9)
    assert torch.equal(GaussianBlur(0)(clean, torch.arange(1), 0), clean)
    assert torch.equal(MotionBlur(1, [0, 180])(clean, torch.arange(1), 0), clean)


@pytest.mark.parametrize(("angle", "axis"), [(0, -1), (90, -2), (180, -1)])
@pytest.mark.parametrize("size", [(31, 40), (5, 3)])
def test_motion_along_an_axis_is_a_running_mean(angle, axis, size):
    clean = picture(*size)
    expected = ndimage.uniform_filter1d(clean.double().numpy(), 9, axis=axis, mode="reflect")
    np.testing.assert_allclose(MotionBlur(9, angle)(clean, torch.arange(1), 0).numpy(), expected, atol=1e-5)


def segment_kernel(length: float, angle: float, radius: int) -> np.ndarray:
    """1 - distance to the segment, pixel by pixel, with complex numbers."""
    half, direction = (length - 1) / 2, np.exp(1j * np.deg2rad(angle))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    for row, column in np.ndindex(kernel.shape):
        point = complex(column - radius, radius - row)  # rows count downwards, angles upwards
        nearest = np.clip((point * direction.conjugate()).real, -half, half) * direction
        kernel[row, column] = max(0, 1 - abs(point - nearest))
    return kernel / kernel.sum()


@pytest.mark.parametrize(("length", "angle"), [(9, 30), (12.5, 45), (7, 110), (15, 163)])
def test_motion_at_an_angle_is_a_convolution_with_a_line(length, angle):
    clean = picture(33, 28)
    kernel = segment_kernel(length, angle, radius=8)
    expected = ndimage.convolve(clean[0].double().numpy(), kernel[None], mode="reflect")
    np.testing.assert_allclose(MotionBlur(length, angle)(clean, torch.arange(1), 0)[0].numpy(), expected, atol=1e-5)


def test_angles_are_counter_clockwise():
    impulse = torch.zeros(1, 3, 21, 21)
    impulse[:, :, 10, 10] = 1
    response = MotionBlur(11, 45)(impulse, torch.arange(1), 0)[0, 0]
    assert response[7, 13] > 0.05  # up and to the right
    assert response[13, 13] == 0


def test_lines_keep_the_mean_and_differ_between_samples():
    impulse = torch.zeros(50, 3, 41, 41)
    impulse[:, :, 20, 20] = 1
    response = MotionBlur([5, 21], [0, 180])(impulse, torch.arange(50), 0)[:, 0]
    torch.testing.assert_close(response.sum((1, 2)), torch.ones(50), atol=1e-5, rtol=0)
    reach = [(one > 0).nonzero().sub(20).float().norm(dim=1).max().item() for one in response]
    assert 2 <= min(reach) < 5
    assert 8 < max(reach) <= 11
