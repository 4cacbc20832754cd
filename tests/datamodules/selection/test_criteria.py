"""Criteria against plain NumPy, Pillow, SciPy and scikit-image, on scikit-image's photographs and on edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.bicubic import upscale
from datamodules.pair import PairBatch
from datamodules.selection.criteria import (
    IDENTICAL_DB,
    GradientEntropy,
    GreyEntropy,
    HighFrequencyEnergy,
    PSNRBicubic,
    SharpeningGain,
    SobelMagnitude,
    grey,
)

SIDE, SCALE = 48, 4
PIXEL_CRITERIA = [
    PSNRBicubic(), PSNRBicubic("rgb"), SobelMagnitude(), GreyEntropy(), GradientEntropy(), HighFrequencyEnergy(),
    SharpeningGain(),
]  # fmt: skip


@pytest.fixture(scope="module")
def luma(patches: np.ndarray) -> list[np.ndarray]:
    """The same in grey by Pillow, float64."""
    return [np.asarray(Image.fromarray(patch).convert("L"), dtype=np.float64) for patch in patches]


def test_grey_is_pillows_bit_for_bit():
    colours = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), dtype=np.uint8)
    colours[0, 0, :2] = [[255, 255, 255], [0, 0, 0]]
    expected = np.asarray(Image.fromarray(colours[0]).convert("L"))
    np.testing.assert_array_equal(grey(torch.from_numpy(colours).permute(0, 3, 1, 2))[0].numpy(), expected)


# --- PSNR of bicubic --------------------------------------------------------------------------------------------------


def cubic(x: float) -> float:
    """Keys' kernel with a = -0.5."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def enlarged_rows(x: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic along H output by output, borders repeated, rounded as MATLAB does."""
    result = np.zeros((len(x) * scale, *x.shape[1:]))
    for row in range(len(result)):
        centre = (row + 0.5) / scale - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            result[row] += cubic(centre - tap) * x[min(max(tap, 0), len(x) - 1)]
    return np.clip(np.floor(result + 0.5), 0, 255)


def reference_psnr(truth: np.ndarray, small: np.ndarray, scale: int) -> float:
    """Of pictures (H, W, ...) and (h, w, ...) in 0..255, by scikit-image."""
    from skimage.metrics import peak_signal_noise_ratio

    large = enlarged_rows(enlarged_rows(small, scale).swapaxes(0, 1), scale).swapaxes(0, 1)
    with np.errstate(divide="ignore"):
        return min(peak_signal_noise_ratio(truth, large, data_range=255), IDENTICAL_DB)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_psnr_of_bicubic_is_scikit_images(batch, patches, luma, scale):
    pairs = batch(patches, scale)
    lr = pairs.lr.permute(0, 2, 3, 1).numpy()
    small = [np.asarray(Image.fromarray(image).convert("L"), dtype=np.float64) for image in lr]
    expected = [reference_psnr(*pair, scale) for pair in zip(luma, small, strict=True)]
    np.testing.assert_allclose(PSNRBicubic()(pairs).numpy(), expected, rtol=1e-12)
    coloured = [reference_psnr(*pair, scale) for pair in zip(patches.astype(float), lr.astype(float), strict=True)]
    np.testing.assert_allclose(PSNRBicubic("rgb")(pairs).numpy(), coloured, rtol=1e-12)


def test_psnr_of_wide_patches_is_exact():
    """White against black LR: 260 x 260 squares of 255, more than float32 could add up."""
    hr = torch.full((1, 3, 260, 260), 255, dtype=torch.uint8)
    hr[..., 0, 0] = 254
    pairs = PairBatch(torch.zeros(1, 3, 65, 65, dtype=torch.uint8), hr, torch.arange(1))
    expected = 10 * math.log10(255**2 * 260**2 / ((260**2 - 1) * 255**2 + 254**2))
    assert PSNRBicubic()(pairs).item() == pytest.approx(expected, rel=1e-13)


def test_flat_patch_has_the_greatest_psnr_and_noise_the_least(batch, patches):
    scores = PSNRBicubic()(batch(patches))
    assert scores[-2] == IDENTICAL_DB == scores.max()
    assert scores.argmin() == len(scores) - 3


@pytest.mark.realdata
def test_psnr_of_whole_test_images_agrees_with_the_published_figure(batch, data_root):
    """Set5 x4 has 28.42 dB on Y, which is 219 / 255 of grey; no border is cropped here, and roundings differ."""
    scores = []
    for path in sorted((data_root / "Set5" / "HR").glob("*.png")):
        image = np.array(Image.open(path).convert("RGB"))
        height, width = (side - side % SCALE for side in image.shape[:2])
        scores.append(PSNRBicubic()(batch(image[None, :height, :width])).item())
    assert len(scores) == 5
    assert np.mean(scores) == pytest.approx(28.42 - 20 * math.log10(255 / 219), abs=0.1)


# --- the others -------------------------------------------------------------------------------------------------------


def sobel(picture: np.ndarray) -> np.ndarray:
    """Gradient magnitude by SciPy, in levels per pixel."""
    from scipy import ndimage

    return np.hypot(*(ndimage.sobel(picture, axis=axis, mode="nearest") for axis in (0, 1))) / 8


def test_sobel_magnitude_is_scipys(batch, patches, luma):
    expected = [sobel(picture).mean() for picture in luma]
    np.testing.assert_allclose(SobelMagnitude()(batch(patches)).numpy(), expected, rtol=1e-6)


def test_a_ramp_of_one_level_per_pixel_has_gradient_one(batch):
    ramp = np.broadcast_to(np.arange(100, 148, dtype=np.uint8)[None, None, :, None], (1, SIDE, SIDE, 3)).copy()
    inner = 46 + 2 * 0.5  # at both ends the repeated border halves the slope
    assert SobelMagnitude()(batch(ramp)).item() == pytest.approx(inner / SIDE)


def test_grey_entropy_is_scikit_images(batch, patches, luma):
    from skimage.measure import shannon_entropy

    np.testing.assert_allclose(
        GreyEntropy()(batch(patches)).numpy(), [shannon_entropy(picture) for picture in luma], atol=1e-12
    )


def test_gradient_entropy_is_that_of_the_histogram(batch, patches, luma):
    from scipy import stats

    counts = [np.histogram(sobel(picture), bins=np.arange(182))[0] for picture in luma]
    assert all(count.sum() == SIDE**2 for count in counts)
    expected = [stats.entropy(count, base=2) for count in counts]
    np.testing.assert_allclose(GradientEntropy()(batch(patches)).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("cutoff", "kept"), [(None, 12), (0.5, 24), (0.3, 15)])
def test_high_frequency_energy_is_scipys_dct_beyond_the_cutoff(batch, patches, luma, cutoff, kept):
    from scipy.fft import dctn

    spectra = [dctn(picture, norm="ortho") for picture in luma]
    for spectrum in spectra:
        spectrum[:kept, :kept] = 0
    expected = [np.sqrt((spectrum**2).sum() / SIDE**2) for spectrum in spectra]  # Parseval
    np.testing.assert_allclose(HighFrequencyEnergy(cutoff)(batch(patches)).numpy(), expected, rtol=1e-9, atol=1e-9)


def test_rounding_of_the_cutoff_lets_no_frequency_through(batch):
    """0.07 * 100 is 7.000000000000001, and the wave of frequency 7 lies beyond."""
    side, frequency = 100, 7
    wave = 127 + 100 * np.cos(np.pi / side * frequency * (np.arange(side) + 0.5))
    patch = np.broadcast_to(np.rint(wave).astype(np.uint8)[None, :, None, None], (1, side, side, 3)).copy()
    assert HighFrequencyEnergy(0.07)(batch(patch)).item() == pytest.approx(100 / math.sqrt(2), rel=0.01)


def test_flat_patches_have_nothing(batch, patches):
    flat = batch(patches[-2:-1])
    for criterion in (SobelMagnitude(), GreyEntropy(), GradientEntropy(), HighFrequencyEnergy()):
        assert criterion(flat).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("criterion", PIXEL_CRITERIA, ids=lambda criterion: str(criterion.identity()))
def test_scores_do_not_depend_on_the_batch(batch, patches, criterion, monkeypatch):
    together = criterion(batch(patches))
    monkeypatch.setitem(criterion.score.__globals__["_PART_PIXELS"], "cpu", 2 * SIDE**2)
    in_parts = criterion(batch(patches))
    alone = torch.cat([criterion(batch(patches[number : number + 1])) for number in range(len(patches))])
    assert together.shape == (len(patches),)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together, in_parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("criterion", PIXEL_CRITERIA[:-1], ids=lambda criterion: str(criterion.identity()))
def test_a_blurred_photograph_is_less_complex(batch, criterion):
    from skimage import data

    sharp = data.astronaut()[0:256, 128:384]
    blurred = np.asarray(Image.fromarray(sharp).resize((32, 32)).resize((256, 256), Image.Resampling.BICUBIC))
    if isinstance(criterion, GreyEntropy):  # which does not know where pixels lie
        blurred = sharp // 4
    sharp_score, blurred_score = criterion(batch(np.stack([sharp, blurred]))).tolist()
    assert (sharp_score < blurred_score) == (criterion.complex_when == "low")


def test_floats_and_wrong_settings_are_refused(batch, patches):
    with pytest.raises(TypeError, match=r"uint8 patches, not torch\.float32"):
        SobelMagnitude()(batch(patches).to_float())
    with pytest.raises(ValueError, match="colour is 'y'; expected grey or rgb"):
        PSNRBicubic("y")
    with pytest.raises(ValueError, match=r"cutoff is 1\.0; expected between 0 and 1"):
        HighFrequencyEnergy(1.0)


# --- gain of sharpening -----------------------------------------------------------------------------------------------


def test_sharpening_gain_is_what_the_best_amount_of_a_shock_filter_gains(batch, patches, luma):
    """The direction by SciPy's grey morphology, the best amount by NumPy's least squares."""
    from scipy import ndimage

    pairs, expected = batch(patches), []
    for truth, lr in zip(luma, pairs.lr, strict=True):
        small = torch.from_numpy(
            np.asarray(Image.fromarray(lr.permute(1, 2, 0).numpy()).convert("L"), dtype=np.float64)
        )
        blurred = upscale(small[None], SCALE)[0].numpy()
        high, low = (
            f(blurred, 2 * SCALE + 1, mode="nearest") for f in (ndimage.maximum_filter, ndimage.minimum_filter)
        )
        distance = blurred - (high + low) / 2
        step = distance * (1 - (2 * distance / np.maximum(high - low, 1)) ** 2).clip(0)
        error = truth - blurred
        best = max(0.0, np.linalg.lstsq(step.reshape(-1, 1), error.ravel(), rcond=None)[0][0])
        expected.append(np.sqrt((error**2).mean()) - np.sqrt(((error - best * step) ** 2).mean()))
    scores = SharpeningGain()(pairs).numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    flat, edge = -2, -1
    assert scores[flat] == 0
    assert scores.argmax() == len(scores) + edge


def test_noise_has_the_most_error_and_sharpening_removes_next_to_none(batch, patches):
    gain, noise = SharpeningGain()(batch(patches)), 9
    assert PSNRBicubic()(batch(patches)).argmin() == noise
    assert gain[noise] < gain[:9].median()
