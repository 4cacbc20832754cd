"""Radial power spectra against numpy, scipy and what theory says."""

import numpy as np
import pytest
import scipy.signal
import torch
from PIL import Image

from datamodules.distilled import DistilledPatch, write_distilled
from datamodules.spectra import distilled_spectrum, power_beyond, power_density, radial_spectrum

SIDE = 64


def grey_patches(levels):
    """(B, H, W) in 0..255 as RGB patches with that luma."""
    return torch.from_numpy(np.asarray(levels).round().astype(np.uint8))[:, None].repeat(1, 3, 1, 1)


def hann(height, width):
    """Periodic Hann window, (height, width), by numpy."""
    return torch.from_numpy(np.outer(np.hanning(height + 1)[:-1], np.hanning(width + 1)[:-1]))


def plain_spectrum(patches):
    """The same in numpy, one frequency at a time; luma by Pillow."""
    height, width = patches.shape[2:]
    window = hann(height, width).numpy()
    rings = {}
    for patch in patches:
        luma = np.asarray(Image.fromarray(patch.permute(1, 2, 0).numpy()).convert("L"), dtype=float)
        density = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2 / (window**2).sum()
        for row, y in enumerate(np.fft.fftfreq(height)):
            for column, x in enumerate(np.fft.fftfreq(width)):
                rings.setdefault(round(np.hypot(x, y) * min(height, width)), []).append(density[row, column])
    return [np.mean(rings[ring]) for ring in range(1, min(height, width) // 2 + 1)]


@pytest.mark.parametrize("shape", [(12, 12), (9, 14)])
def test_is_what_a_loop_over_frequencies_gives(shape):
    noise = np.random.default_rng(0).integers(0, 256, (40, 3, *shape), dtype=np.uint8)  # more than a part of them
    patches = torch.from_numpy(noise)
    frequencies, power = radial_spectrum(patches)
    side = min(shape)
    np.testing.assert_allclose(frequencies, np.arange(1, side // 2 + 1) / side)
    np.testing.assert_allclose(power, plain_spectrum(patches), rtol=1e-10)


def test_white_noise_is_flat_and_has_the_power_of_its_variance():
    noise = np.random.default_rng(1).integers(0, 256, (128, SIDE, SIDE))
    frequencies, power = radial_spectrum(grey_patches(noise))
    variance = (256**2 - 1) / 12  # of the discrete uniform distribution
    assert frequencies[-1] == 0.5
    # Removing the mean takes some of the ring next to zero, 4 of whose 8 frequencies lose 1/9, and the others 1/36.
    assert power[0] == pytest.approx(variance * (1 - (1 / 9 + 1 / 36) / 2), rel=0.12)
    np.testing.assert_allclose(power[3:], variance, rtol=0.08)
    assert power[8:].mean() == pytest.approx(variance, rel=0.01)


def test_power_does_not_depend_on_the_side_of_the_patches():
    noise = np.random.default_rng(2).integers(0, 256, (64, SIDE, SIDE))
    halves = noise[:, :32, :32]
    large, small = (radial_spectrum(grey_patches(each)).power for each in (noise, halves))
    assert small[4:].mean() == pytest.approx(large[8:].mean(), rel=0.02)


@pytest.mark.parametrize(("x", "y"), [(10, 0), (0, 23), (6, 8), (3, 0)])
def test_a_cosine_peaks_at_its_frequency_with_its_power(x, y):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    wave = 128 + 100 * np.cos(2 * np.pi * (x * columns + y * rows) / SIDE)
    frequencies, power = radial_spectrum(grey_patches(wave[None]))
    assert frequencies[power.argmax()] == np.hypot(x, y) / SIDE
    # The window spreads it over neighbours: amplitude^2 / 4 x (sum of window)^2 / sum of squares at the middle of each.
    density = power_density(torch.from_numpy(wave)[None], hann(SIDE, SIDE))[0]
    assert density[y, x].item() == pytest.approx(100**2 / 4 * (SIDE / 2) ** 4 / (SIDE * 3 / 8) ** 2, rel=1e-9)


def test_a_leap_at_the_border_does_not_leak_into_high_frequencies():
    ramp = np.broadcast_to(np.linspace(0, 255, SIDE), (1, SIDE, SIDE))
    power = radial_spectrum(grey_patches(ramp)).power
    ones = power_density(torch.from_numpy(ramp.round()), torch.ones(SIDE, SIDE).double())[0]
    assert power[15] < 1e-3 * ones[:, 16].mean()


def test_without_a_window_mean_power_is_the_variance():
    """Parseval."""
    images = torch.from_numpy(np.random.default_rng(3).normal(100, 30, (5, 10, 16)))
    density = power_density(images, torch.ones(10, 16).double())
    np.testing.assert_allclose(density.mean((1, 2)), images.numpy().var((1, 2)), rtol=1e-12)


def test_agrees_with_the_periodogram_of_scipy():
    """For an image that is the same in all rows, the mean over vertical frequencies is the periodogram of one row."""
    row = np.random.default_rng(4).normal(100, 30, 40)
    density = power_density(torch.from_numpy(np.broadcast_to(row, (1, 24, 40)).copy()), hann(24, 40))[0]
    _, expected = scipy.signal.periodogram(row, window="hann", return_onesided=False)
    np.testing.assert_allclose(density.mean(0), expected, rtol=1e-9, atol=1e-9)


def test_power_beyond_a_frequency_is_the_variance_that_it_contributes():
    noise = np.random.default_rng(6).integers(0, 256, (128, SIDE, SIDE))
    spectrum = radial_spectrum(grey_patches(noise))
    ring = np.pi * (0.5**2 - 0.25**2)  # white noise has the same power everywhere in the unit square of frequencies
    assert power_beyond(spectrum, 0.25) == pytest.approx((256**2 - 1) / 12 * ring, rel=0.03)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    wave = 128 + 100 * np.cos(2 * np.pi * (12 * columns + 16 * rows) / SIDE)  # 20 / 64 cycles per pixel
    spectrum = radial_spectrum(grey_patches(wave[None]))
    assert power_beyond(spectrum, 0.25) == pytest.approx(100**2 / 2, rel=0.06)  # no ring has quite its area
    assert power_beyond(spectrum, 0.4) < 1


def test_refuses_what_is_no_set_of_patches():
    with pytest.raises(TypeError, match=r"uint8 patches, not torch\.float32"):
        radial_spectrum(torch.zeros(1, 3, 8, 8))
    for shape in ((0, 3, 8, 8), (2, 3, 8, 3)):
        with pytest.raises(ValueError, match="have no spectrum; give one or more of at least 4 x 4"):
            radial_spectrum(torch.zeros(shape, dtype=torch.uint8))


def noise_set(folder, sizes):
    rng = np.random.default_rng(5)
    pixels = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    write_distilled(folder, map(DistilledPatch, pixels), 4, {})
    return pixels


def test_patches_of_a_set_are_cropped_to_what_all_have(tmp_path):
    pixels = noise_set(tmp_path / "set", [(16, 16), (12, 20), (24, 16)])
    crops = [pixels[0][2:14, 2:14], pixels[1][:, 4:16], pixels[2][6:18, 2:14]]
    expected = radial_spectrum(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))
    found = distilled_spectrum(tmp_path / "set")
    np.testing.assert_array_equal(found.frequencies, np.arange(1, 7) / 12)
    np.testing.assert_array_equal(found.power, expected.power)


def test_takes_patches_evenly_from_first_to_last(tmp_path):
    pixels = noise_set(tmp_path / "set", [(8, 8)] * 5)
    expected = radial_spectrum(torch.from_numpy(np.stack([pixels[0], pixels[2], pixels[4]])).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(distilled_spectrum(tmp_path / "set", most=3).power, expected.power)


@pytest.mark.realdata
def test_photographs_have_the_power_law_of_natural_images(data_root):
    """Power falls as 1 / f^a with a of about 2 (D. J. Field 1987)."""
    paths = sorted((data_root / "BSD100").rglob("*.png"))[:30]
    crops = [np.asarray(Image.open(path).convert("RGB"))[100:228, 100:228] for path in paths]
    frequencies, power = radial_spectrum(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))
    middle = (frequencies > 0.03) & (frequencies < 0.3)
    slope = np.polyfit(np.log(frequencies[middle]), np.log(power[middle]), 1)[0]
    assert -2.6 < slope < -1.6
