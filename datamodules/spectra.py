"""Radial power spectra: how much fine detail training data hold."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datamodules.distilled import read_distilled
from datamodules.distilled.decoding import images_of
from datamodules.paths import cache_folder
from datamodules.selection.criteria import grey

_TOGETHER = 32  # patches transformed at a time, to bound memory


class Spectrum(NamedTuple):
    """Mean power at each distance from zero frequency.

    Attributes:
        frequencies: in cycles per pixel, above 0 and up to 0.5, float64 (R,).
        power: density in squared grey levels per (cycle per pixel) squared, float64 (R,): white noise of variance s^2
            has s^2 everywhere, whatever the side of the patches.
    """

    frequencies: NDArray[np.float64]
    power: NDArray[np.float64]


def power_density(images: Tensor, window: Tensor) -> Tensor:
    """Periodograms, |DFT(window x (image - mean))|^2 / sum(window^2), as P. D. Welch (1967) scales them.

    With a window of ones, the mean over all frequencies is the variance of the image (Parseval).

    Args:
        images: grey levels, floating point, (B, H, W).
        window: weight of each pixel, (H, W).

    Returns:
        (B, H, W), frequencies in the order of `torch.fft.fft2`.
    """
    centred = images - images.mean((1, 2), keepdim=True)
    return torch.fft.fft2(centred * window).abs().square() / window.square().sum()


def radial_spectrum(patches: Tensor) -> Spectrum:
    """Power spectrum of luma, the mean over patches and over rings of frequencies equally far from zero.

    A Hann window in both directions keeps the jump between opposite borders of a patch, which is nothing that is seen
    in it, from leaking into high frequencies. Rings are 1 / (shorter side) wide; corners beyond 0.5 are in none.

    Args:
        patches: uint8, (B, 3, H, W), at least one, of 4 x 4 pixels or more.

    Raises:
        TypeError: when they are not uint8.
        ValueError: when there are none, or they are smaller.
    """
    if patches.dtype != torch.uint8:
        raise TypeError(f"spectra are taken of uint8 patches, not {patches.dtype}")
    if not len(patches) or min(patches.shape[2:]) < 4:
        raise ValueError(
            f"patches of shape {tuple(patches.shape)} have no spectrum; give one or more of at least 4 x 4"
        )
    height, width = patches.shape[2:]
    window = _hann(height)[:, None] * _hann(width)
    density = torch.zeros(height, width, dtype=torch.float64)
    for part in patches.split(_TOGETHER):
        density += power_density(grey(part).double(), window).sum(0)
    return _rings(density / len(patches))


def power_beyond(spectrum: Spectrum, frequency: float) -> float:
    """Variance that frequencies beyond one contribute, in squared grey levels: the power density times their area.

    Args:
        spectrum: of patches.
        frequency: in cycles per pixel, below 0.5; rings whose middle lies beyond count.
    """
    beyond = spectrum.frequencies > frequency
    width = spectrum.frequencies[0]
    return float((2 * np.pi * spectrum.frequencies * width * spectrum.power)[beyond].sum())


def distilled_spectrum(folder: Path, most: int = 256) -> Spectrum:
    """Spectrum of the HR patches of a distilled set.

    Args:
        folder: of the set; its files are not verified. Latents are decoded, see `images_of`.
        most: patches to look at, taken evenly from first to last. Each is cropped around its centre to the longest
            side that is in all patches of the set.

    Raises:
        FileNotFoundError: when the folder, one of its files, or the generator of latents is missing.
        ValueError: when it is no distilled set, or its latents cannot be decoded.
    """
    patches = images_of(read_distilled(folder, verify=False), cache_folder(None))
    side = min(min(size) for size in patches.sizes)
    count = len(patches.metadata)
    chosen = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    names = [patches.metadata[number]["file_name"] for number in chosen]
    return radial_spectrum(torch.stack([_read_centre(patches.folder / name, side) for name in names]))


def _hann(length: int) -> Tensor:
    return torch.hann_window(length, periodic=True, dtype=torch.float64)


def _rings(density: Tensor) -> Spectrum:
    height, width = density.shape
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
    side = min(height, width)
    ring = (torch.hypot(rows[:, None], columns) * side).round().long().flatten()
    total, count = (torch.bincount(ring, weights)[1 : side // 2 + 1] for weights in (density.flatten(), None))
    frequencies = np.arange(1, side // 2 + 1) / side
    return Spectrum(frequencies, (total / count).numpy())


def _read_centre(path: Path, side: int) -> Tensor:
    """uint8, (3, side, side)."""
    with Image.open(path) as image:
        left, top = (image.width - side) // 2, (image.height - side) // 2
        pixels = np.array(image.convert("RGB").crop((left, top, left + side, top + side)))
    return torch.from_numpy(pixels).permute(2, 0, 1)
