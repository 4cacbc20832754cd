"""JPEG against the standard's quantisation and another binding of libjpeg."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.degradation import JPEG


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def by_torchvision(pixels: np.ndarray, quality: int) -> np.ndarray:
    vision = pytest.importorskip("torchvision.io")
    if not hasattr(vision, "encode_jpeg"):
        pytest.skip("this torchvision encodes no JPEG any more")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        file = vision.encode_jpeg(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), quality)
        return vision.decode_jpeg(file).permute(1, 2, 0).numpy()


def batch(pixels: np.ndarray, count: int = 1) -> torch.Tensor:
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255).expand(count, -1, -1, -1)


@pytest.mark.parametrize("quality", [1, 10, 40, 75, 100])
@pytest.mark.parametrize("size", [(64, 80), (37, 51)])
def test_pixels_are_torchvisions(quality, size):
    pixels = picture(*size)
    degraded = JPEG(quality)(batch(pixels), torch.arange(1), 0)
    levels = (degraded[0] * 255).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(levels, by_torchvision(pixels, quality), atol=1e-3)


@pytest.mark.parametrize(("quality", "step"), [(10, 80), (25, 32), (50, 16), (90, 3)])
def test_flat_grey_is_quantised_as_the_standard_says(quality, step):
    """A flat block's only coefficient is 8 (value - 128); its step is 16 in Annex K of the standard, scaled by IJG's
    rule: 50 / quality up to 50, 2 - quality / 50 above."""
    value = torch.arange(256.0)
    degraded = JPEG(quality)((value / 255).view(-1, 1, 1, 1).expand(-1, 3, 8, 8), torch.arange(256), 0) * 255
    expected = (128 + (8 * (value - 128) / step).round() * step / 8).clamp(0, 255)
    tie = ((8 * (value - 128) / step) % 1) == 0.5  # of two equally near values
    difference = (degraded - expected.view(-1, 1, 1, 1)).abs().amax((1, 2, 3))
    assert difference[~tie].max() < 0.51  # values are whole


def test_each_sample_has_a_quality_of_its_own_and_both_ends_occur():
    pixels = picture(24, 24)
    expected = {quality: by_torchvision(pixels, quality).astype(np.float32) for quality in (10, 11, 12)}
    counts = dict.fromkeys(expected, 0)
    for one in JPEG([10, 12])(batch(pixels, 300), torch.arange(300), 0):
        levels = (one * 255).permute(1, 2, 0).numpy()
        matches = [quality for quality, known in expected.items() if np.abs(levels - known).max() < 1e-3]
        assert len(matches) == 1
        counts[matches[0]] += 1
    assert min(counts.values()) > 100 - 4 * (300 * 2 / 9) ** 0.5  # four binomial standard deviations


def test_values_between_levels_are_rounded_first():
    pixels = picture(16, 16)
    between = (batch(pixels) + 0.4 / 255).clamp(0, 1)
    assert torch.equal(JPEG(90)(between, torch.arange(1), 0), JPEG(90)(batch(pixels), torch.arange(1), 0))
