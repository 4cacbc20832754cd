"""Criteria against plain NumPy, Pillow, SciPy and scikit-image, on scikit-image's photographs and on edge cases."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.bicubic import downscale
from datamodules.pair import PairBatch
from datamodules.selection.criteria import (
    IDENTICAL_DB,
    GradientEntropy,
    GreyEntropy,
    HighFrequencyEnergy,
    PSNRBicubic,
    SobelMagnitude,
    SRLoss,
    grey,
)
from lightning_modules.networks import NetworkSpec, build_network, export_weights

SIDE, SCALE = 48, 4
PIXEL_CRITERIA = [
    PSNRBicubic(), PSNRBicubic("rgb"), SobelMagnitude(), GreyEntropy(), GradientEntropy(), HighFrequencyEnergy(),
]  # fmt: skip


def batch(patches: np.ndarray, scale: int = SCALE) -> PairBatch:
    """From uint8 (B, H, W, 3)."""
    hr = torch.from_numpy(patches).permute(0, 3, 1, 2).contiguous()
    return PairBatch(downscale(hr, scale), hr, torch.arange(len(hr)))


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    """Of three photographs: smooth, textured and busy; then noise, a flat patch and a hard edge."""
    from skimage import data

    photographs = [data.astronaut(), data.coffee(), data.chelsea()]
    crops = [photo[top : top + SIDE, top : top + SIDE] for photo in photographs for top in (20, 110, 200)]
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    edge = np.zeros_like(noise)
    edge[:, SIDE // 2 :] = 255
    return np.stack([*crops, noise, np.full_like(noise, 93), edge])


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
def test_psnr_of_bicubic_is_scikit_images(patches, luma, scale):
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


def test_flat_patch_has_the_greatest_psnr_and_noise_the_least(patches):
    scores = PSNRBicubic()(batch(patches))
    assert scores[-2] == IDENTICAL_DB == scores.max()
    assert scores.argmin() == len(scores) - 3


@pytest.mark.realdata
def test_psnr_of_whole_test_images_agrees_with_the_published_figure(data_root):
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


def test_sobel_magnitude_is_scipys(patches, luma):
    expected = [sobel(picture).mean() for picture in luma]
    np.testing.assert_allclose(SobelMagnitude()(batch(patches)).numpy(), expected, rtol=1e-6)


def test_a_ramp_of_one_level_per_pixel_has_gradient_one():
    ramp = np.broadcast_to(np.arange(100, 148, dtype=np.uint8)[None, None, :, None], (1, SIDE, SIDE, 3)).copy()
    inner = 46 + 2 * 0.5  # at both ends the repeated border halves the slope
    assert SobelMagnitude()(batch(ramp)).item() == pytest.approx(inner / SIDE)


def test_grey_entropy_is_scikit_images(patches, luma):
    from skimage.measure import shannon_entropy

    np.testing.assert_allclose(
        GreyEntropy()(batch(patches)).numpy(), [shannon_entropy(picture) for picture in luma], atol=1e-12
    )


def test_gradient_entropy_is_that_of_the_histogram(patches, luma):
    from scipy import stats

    counts = [np.histogram(sobel(picture), bins=np.arange(182))[0] for picture in luma]
    assert all(count.sum() == SIDE**2 for count in counts)
    expected = [stats.entropy(count, base=2) for count in counts]
    np.testing.assert_allclose(GradientEntropy()(batch(patches)).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("cutoff", "kept"), [(None, 12), (0.5, 24), (0.3, 15)])
def test_high_frequency_energy_is_scipys_dct_beyond_the_cutoff(patches, luma, cutoff, kept):
    from scipy.fft import dctn

    spectra = [dctn(picture, norm="ortho") for picture in luma]
    for spectrum in spectra:
        spectrum[:kept, :kept] = 0
    expected = [np.sqrt((spectrum**2).sum() / SIDE**2) for spectrum in spectra]  # Parseval
    np.testing.assert_allclose(HighFrequencyEnergy(cutoff)(batch(patches)).numpy(), expected, rtol=1e-9, atol=1e-9)


def test_rounding_of_the_cutoff_lets_no_frequency_through():
    """0.07 * 100 is 7.000000000000001, and the wave of frequency 7 lies beyond."""
    side, frequency = 100, 7
    wave = 127 + 100 * np.cos(np.pi / side * frequency * (np.arange(side) + 0.5))
    patch = np.broadcast_to(np.rint(wave).astype(np.uint8)[None, :, None, None], (1, side, side, 3)).copy()
    assert HighFrequencyEnergy(0.07)(batch(patch)).item() == pytest.approx(100 / math.sqrt(2), rel=0.01)


def test_flat_patches_have_nothing(patches):
    flat = batch(patches[-2:-1])
    for criterion in (SobelMagnitude(), GreyEntropy(), GradientEntropy(), HighFrequencyEnergy()):
        assert criterion(flat).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("criterion", PIXEL_CRITERIA, ids=lambda criterion: str(criterion.identity()))
def test_scores_do_not_depend_on_the_batch(patches, criterion, monkeypatch):
    together = criterion(batch(patches))
    monkeypatch.setitem(criterion.score.__globals__["_PART_PIXELS"], "cpu", 2 * SIDE**2)
    in_parts = criterion(batch(patches))
    alone = torch.cat([criterion(batch(patches[number : number + 1])) for number in range(len(patches))])
    assert together.shape == (len(patches),)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together, in_parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("criterion", PIXEL_CRITERIA, ids=lambda criterion: str(criterion.identity()))
def test_a_blurred_photograph_is_less_complex(criterion):
    from skimage import data

    sharp = data.astronaut()[0:256, 128:384]
    blurred = np.asarray(Image.fromarray(sharp).resize((32, 32)).resize((256, 256), Image.Resampling.BICUBIC))
    if isinstance(criterion, GreyEntropy):  # which does not know where pixels lie
        blurred = sharp // 4
    sharp_score, blurred_score = criterion(batch(np.stack([sharp, blurred]))).tolist()
    assert (sharp_score < blurred_score) == (criterion.complex_when == "low")


def test_floats_and_wrong_settings_are_refused(patches):
    with pytest.raises(TypeError, match=r"uint8 patches, not torch\.float32"):
        SobelMagnitude()(batch(patches).to_float())
    with pytest.raises(ValueError, match="colour is 'y'; expected grey or rgb"):
        PSNRBicubic("y")
    with pytest.raises(ValueError, match=r"cutoff is 1\.0; expected between 0 and 1"):
        HighFrequencyEnergy(1.0)


# --- loss of a trained network ----------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path) -> str:
    """Exported weights of an untrained EDSR x4 that is bicubic upscaling plus a little noise."""
    torch.manual_seed(0)
    spec = {"architecture": "EDSR", "options": {"n_feats": 4, "n_resblocks": 1, "bicubic_skip": True}}
    network = build_network(NetworkSpec(**spec), SCALE)
    torch.nn.init.normal_(network.tail[-1].weight, std=0.02)
    path = tmp_path / "weights.safetensors"
    export_weights(network, path, {"network": json.dumps(spec), "scale": "4"})
    return str(path)


def test_sr_loss_is_the_mean_absolute_error_in_grey_levels(patches, checkpoint):
    from safetensors.torch import load_file

    network = build_network(NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1, "bicubic_skip": True}), SCALE)
    network.load_state_dict(load_file(checkpoint))
    pairs = batch(patches)
    expected = []
    for lr, hr in zip(pairs.lr, pairs.hr, strict=True):
        with torch.no_grad():
            sr = 255 * network(lr[None].float() / 255)[0].clamp(0, 1).numpy().astype(np.float64)
        expected.append(np.abs(sr - hr.numpy()).mean())
    scores = SRLoss(checkpoint)(pairs)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)
    assert not scores.requires_grad


def test_sr_loss_is_known_by_the_files_content(checkpoint, tmp_path):
    import hashlib

    path = tmp_path / "weights.safetensors"
    expected = {"class": "SRLoss", "checkpoint": checkpoint, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert SRLoss(checkpoint).identity() == expected


def test_sr_loss_reads_nothing_before_it_is_called_and_refuses_another_scale(patches, checkpoint):
    missing = SRLoss("nowhere.ckpt")
    with pytest.raises(FileNotFoundError, match=r"there is no nowhere\.ckpt"):
        missing(batch(patches))
    with pytest.raises(ValueError, match=r"upscales x4, but the patches have scale 2; give a network trained for x2"):
        SRLoss(checkpoint)(batch(patches, 2))
