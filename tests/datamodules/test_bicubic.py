"""The resize against MATLAB's own files, a plain NumPy port of ``imresize.m`` and published figures."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.bicubic import downscale, imresize, upscale

THIRD = Fraction(1, 3)
SCALES = [0.5, THIRD, 0.25, 2, 3, 4, 1.5, Fraction(2, 3), 0.3]
SIZES = [(23, 37), (64, 51), (5, 3)]


def kernel(x: float) -> float:
    """Keys' cubic with a = -0.5, as in imresize.m."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def folded(position: int, length: int, border: str) -> int:
    """``aux = [1:n, n:-1:1]`` of imresize.m (mirror), or ``min(max(..))`` of older releases (clamp)."""
    if border == "clamp":
        return min(max(position, 0), length - 1)
    return [*range(length), *reversed(range(length))][position % (2 * length)]


def reference_rows(x: np.ndarray, scale: float, outputs: int, border: str) -> np.ndarray:
    """Resize (H, ...) along H, output by output and tap by tap: imresize.m's ``contributions`` and ``imresizemex``."""
    stretch = min(scale, 1.0)
    width = 4 / stretch
    result = np.zeros((outputs, *x.shape[1:]))
    for i in range(1, outputs + 1):
        centre = i / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(centre - width / 2)
        taps = [left + k for k in range(math.ceil(width) + 2)]
        weights = [stretch * kernel(stretch * (centre - tap)) for tap in taps]
        for tap, weight in zip(taps, np.divide(weights, np.sum(weights)), strict=True):
            result[i - 1] += weight * x[folded(tap - 1, len(x), border)].astype(np.float64)
    if x.dtype == np.uint8:
        return np.clip(np.floor(result + 0.5), 0, 255).astype(np.uint8)
    return result


def reference(x: np.ndarray, scale: float | Fraction, border: str = "clamp") -> np.ndarray:
    """Resize (C, H, W), rows first."""
    for axis in (1, 2):
        outputs = math.ceil(Fraction(scale).limit_denominator(100) * x.shape[axis])
        x = np.moveaxis(reference_rows(np.moveaxis(x, axis, 0), float(scale), outputs, border), 0, axis)
    return x


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("border", ["clamp", "mirror"])
@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_both_modes_equal_the_reference(size, scale, border):
    x = noise(3, *size)
    expected = reference(x.astype(np.float64), scale, border)
    images = torch.from_numpy(x)
    np.testing.assert_allclose(imresize(images.double(), scale, border=border).numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(imresize(images.float(), scale, border=border).numpy(), expected, atol=1e-3)
    np.testing.assert_array_equal(imresize(images, scale, border=border).numpy(), reference(x, scale, border))


@pytest.mark.parametrize("scale", [Fraction(1, 8), Fraction(1, 16), 8])
def test_uint8_mode_at_scales_that_need_more_than_float32(scale):
    x = noise(1, 50, 67)
    np.testing.assert_array_equal(imresize(torch.from_numpy(x), scale).numpy(), reference(x, scale))


def test_uint8_mode_in_many_tiles_equals_the_reference(monkeypatch):
    monkeypatch.setattr("datamodules.bicubic._TILE", {"cpu": 5000})
    x = noise(2, 150, 131)
    for scale in (0.25, THIRD, 2):
        np.testing.assert_array_equal(imresize(torch.from_numpy(x), scale).numpy(), reference(x, scale))


def test_uint8_mode_rounds_half_away_from_zero_after_each_pass():
    # At 1/2 the weights are (-3, -9, 29, 111, 111, 29, -9, -3) / 256: a step of 128 gives exact halves, such as 8.5.
    x = torch.zeros(1, 1, 32, dtype=torch.uint8)
    x[..., 16:] = 128
    exact = imresize(x.double(), 0.5)
    assert (exact % 1 == 0.5).any()
    assert torch.equal(imresize(x, 0.5).double(), exact.clamp(0, 255).add(0.5).floor())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_a_constant_stays_constant(scale, dtype):
    resized = imresize(torch.full((1, 3, 19, 22), 200, dtype=dtype), scale)
    assert resized.dtype == dtype
    torch.testing.assert_close(resized.double(), torch.full_like(resized, 200).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((481, 321), 0.25, (121, 81)),
        ((10, 9), 1 / 3, (4, 3)),
        ((10, 20), 1.1, (11, 22)),  # in binary 1.1 * 10 is above 11
        ((10, 7), 0.3, (3, 3)),
        ((5, 5), Fraction(3, 2), (8, 8)),
        ((1, 1), 0.01, (1, 1)),
        ((7, 8), 1, (7, 8)),
    ],
)
def test_output_size_is_by_ceil(size, scale, expected):
    assert imresize(torch.zeros(2, 3, *size), scale).shape == (2, 3, *expected)
    assert imresize(torch.zeros(3, *size, dtype=torch.uint8), scale).shape == (3, *expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("scale", [0.25, THIRD, 4], ids=str)
def test_a_batch_equals_its_images_one_by_one(scale, dtype):
    images = torch.from_numpy(noise(2, 5, 3, 33, 30)).to(dtype)
    batch = imresize(images, scale)
    single = torch.stack([torch.stack([imresize(image, scale) for image in row]) for row in images])
    torch.testing.assert_close(batch, single, atol=0 if dtype == torch.uint8 else 1e-4, rtol=0)
    assert batch.is_contiguous()
    assert imresize(images[:, :0], scale).shape == (2, 0, *batch.shape[2:])


def test_memory_layout_does_not_matter():
    hwc = torch.from_numpy(noise(40, 36, 3))
    assert torch.equal(downscale(hwc.permute(2, 0, 1), 4), downscale(hwc.permute(2, 0, 1).contiguous(), 4))


def test_downscale_and_upscale_are_imresize():
    x = torch.rand(1, 3, 24, 18)
    assert torch.equal(downscale(x, 3, border="mirror"), imresize(x, THIRD, border="mirror"))
    assert torch.equal(upscale(x, 2, border="mirror"), imresize(x, 2, border="mirror"))


@pytest.mark.parametrize("border", ["clamp", "mirror"])
@pytest.mark.parametrize("scale", [0.5, THIRD, 2, 1.5], ids=str)
def test_gradients(scale, border):
    x = torch.rand(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda images: imresize(images, scale, border=border), x)


def test_a_plan_made_in_inference_mode_serves_training():
    x = torch.rand(1, 3, 29, 31)
    with torch.inference_mode():
        downscale(x, 4)
    x.requires_grad_()
    downscale(x, 4).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(("autocast", "precision"), [(True, "highest"), (False, "medium")])
def test_autocast_and_reduced_matmul_precision_change_nothing(autocast, precision):
    x = torch.from_numpy(noise(3, 64, 64))
    expected, expected_uint8 = downscale(x.float(), 4), downscale(x, 4)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            resized, resized_uint8 = downscale(x.float(), 4), downscale(x, 4)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(resized, expected, atol=1e-4, rtol=0)
    assert torch.equal(resized_uint8, expected_uint8)


@pytest.mark.parametrize(
    ("images", "scale", "error", "message"),
    [
        (torch.zeros(3, 8, 8), 0, ValueError, "scale is 0; expected a factor above 0"),
        (torch.zeros(3, 8, 8), -0.5, ValueError, "scale is -0.5"),
        (torch.zeros(3, 8, 8), math.inf, ValueError, "scale is inf"),
        (torch.zeros(8, 8), 2, ValueError, r"images are \(8, 8\); expected \(..., C, H, W\)"),
        (torch.zeros(3, 0, 8), 2, ValueError, "at least one pixel"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), 2, TypeError, "images are torch.int32; expected floating point or"),
    ],
)
def test_errors_name_the_value_in_one_line(images, scale, error, message):
    with pytest.raises(error, match=message) as caught:
        imresize(images, scale)
    assert "\n" not in str(caught.value)


def test_errors_of_border_and_integer_factors():
    with pytest.raises(ValueError, match="border is 'reflect'; expected 'clamp' or 'mirror'"):
        imresize(torch.zeros(3, 8, 8), 2, border="reflect")
    for function in (downscale, upscale):
        for scale in (0, 2.5):
            with pytest.raises(ValueError, match=f"scale is {scale}; expected an integer of 1 or more"):
                function(torch.zeros(3, 8, 8), scale)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_cuda_equals_cpu(scale):
    images = torch.from_numpy(noise(2, 3, 45, 66))
    assert torch.equal(imresize(images.cuda(), scale).cpu(), imresize(images, scale))
    torch.testing.assert_close(
        imresize(images.float().cuda(), scale).cpu(), imresize(images.float(), scale), atol=1e-3, rtol=0
    )


# --- the benchmark sets ---------------------------------------------------------------------------------------------


def read(path: Path) -> torch.Tensor:
    """uint8 (C, H, W); C is 1 where the file is grey."""
    pixels = np.array(Image.open(path))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def pairs(root: Path, name: str, scale: int) -> list[tuple[Path, Path]]:
    """HR and LR files. The HR files are cropped to multiples of 4 already; Set14 has its own, of multiples of 2."""
    hr = root / name / f"HRx{scale}"
    files = sorted((hr if hr.is_dir() else root / name / "HR").glob("*.png"))
    return [(file, root / name / f"LRbicx{scale}" / file.name) for file in files]


def luma(image: torch.Tensor) -> np.ndarray:
    """Unrounded Y of BT.601, 16..235, of uint8 RGB."""
    return 16 + np.tensordot([65.481, 128.553, 24.966], image.numpy() / 255.0, 1)


def psnr_y(a: torch.Tensor, b: torch.Tensor, crop: int) -> float:
    difference = (luma(a) - luma(b))[crop:-crop, crop:-crop]
    return 10 * math.log10(255**2 / np.mean(difference**2))


@pytest.mark.realdata
@pytest.mark.parametrize("scale", [4, 2])
@pytest.mark.parametrize(("name", "count"), [("Set5", 5), ("Set14", 14), ("BSD100", 100)])
def test_uint8_mode_equals_matlabs_files_bit_for_bit(data_root, name, count, scale):
    files = pairs(data_root, name, scale)
    assert len(files) == count
    different = [lr.name for hr, lr in files if not torch.equal(downscale(read(hr), scale), read(lr))]
    assert different == []


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    # Papers round Y to uint8: 28.42, 25.96 and 33.66. Unrounded, as BasicSR measures, adds about 0.01 dB.
    [("Set5", 4, 28.432), ("BSD100", 4, 25.963), ("Set5", 2, 33.679)],
)
def test_psnr_of_bicubic_upscaling_is_the_known_figure(data_root, name, scale, expected):
    values = [psnr_y(upscale(read(lr), scale), read(hr), scale) for hr, lr in pairs(data_root, name, scale)]
    assert np.mean(values) == pytest.approx(expected, abs=0.005)
