"""A description of a patch by 33 measured properties; needs no weights."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from datamodules.selection.interfaces import Features

SMALLEST_SIDE = 16
BAND_EDGES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
"""Radial frequency as a fraction of Nyquist's; from 16 pixels on there are coefficients in every band."""

DIRECTIONS = 3
HARMONICS = 4
ROUNDING_NOISE = 1 / 12 / 255**2
"""Variance of the error of rounding to 8 bits: energies are told in decades above it, below it they say nothing."""

SPREAD = {"bands": 3.80, "colours": 0.655, "gradients": 0.474}
"""Root mean squared distance of each group from its mean, over patches of 64 x 64 of BSDS500 (training and test)."""

CHUNK_PIXELS = 1 << 17
"""HR pixels at a time, so that what is computed in between stays in the processor's cache."""


class Descriptor(Features):
    """Frequency content, colours and gradients of a patch in 33 numbers, for squares of at least 16 pixels.

    - 18 band energies: mean squared coefficient of the luma's orthonormal DCT-II in 6 bands of radial frequency (edges
      at 1/8, 1/4, 3/8, 1/2 and 3/4 of Nyquist's) times 3 directions (up to 30 degrees from horizontal, diagonal, up to
      30 degrees from vertical), in decades above the noise of 8-bit rounding: log10(1 + energy / noise).
    - 6 colour statistics: mean, in [-1, 1], and standard deviation, in decades above the noise, of the opponent
      channels (R + G + B) / 3, R - G and (R + G) / 2 - B.
    - 9 gradient statistics: sum(m cos 2ka) / sum(m) and the same of the sine, for k = 1 .. 4, magnitude m and
      angle a of the gradient of each pixel; that is, the Fourier coefficients of the usual histogram of orientations,
      without bins, at whose borders the least change of a pixel would make a jump. Last, log10(mean(m^2) / mean(m)^2):
      0 for an even texture, and greater the fewer edges hold the contrast.

    Each group is divided by its spread over photographs (`SPREAD`), so that the three count alike in a Euclidean
    distance. Sums are taken in double precision: their order, in which machines differ, then changes no float32.
    """

    def load(self, device: torch.device) -> None:
        """Nothing to load."""

    def __call__(self, hr: Tensor) -> Tensor:
        """Vectors of a batch of patches.

        Args:
            hr: float32 RGB in [0, 1], (B, 3, side, side), side at least 16.

        Returns:
            float32, (B, 33).

        Raises:
            ValueError: when the patches are not square, or smaller.
        """
        height, width = hr.shape[-2:]
        if height != width or height < SMALLEST_SIDE:
            raise ValueError(
                f"a patch of {height} x {width} pixels has no descriptor; "
                f"set data.candidate_size to {SMALLEST_SIDE} or more"
            )
        # Apple's GPUs have no double precision.
        pixels = hr.cpu() if hr.device.type == "mps" else hr
        chunks = pixels.split(max(1, CHUNK_PIXELS // height**2))
        return torch.cat([_describe(chunk) for chunk in chunks]).to(hr.device)


def _describe(hr: Tensor) -> Tensor:
    red, green, blue = hr.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    groups = {"bands": _bands(luma), "colours": _colours(hr), "gradients": _gradients(luma)}
    return torch.cat([values / SPREAD[name] for name, values in groups.items()], dim=1).float()


def _decades(energy: Tensor) -> Tensor:
    return torch.log10(1 + energy.clamp(min=0) / ROUNDING_NOISE)


def _bands(luma: Tensor) -> Tensor:
    transform, averages = _dct(luma.shape[-1], luma.device)
    coefficients = transform @ luma.double() @ transform.T
    return _decades(coefficients.square().flatten(1) @ averages)


@lru_cache(maxsize=4)
def _dct(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrix of the orthonormal DCT-II, (side, side), and what averages each band of its squares, (side^2, 18)."""
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        transform, member = _dct_bands(side)
        return transform.to(device), (member / member.sum(0)).to(device)


def _dct_bands(side: int) -> tuple[Tensor, Tensor]:
    """Matrix of the orthonormal DCT-II, (side, side), and which band each coefficient lies in, one-hot (side^2, 18)."""
    order = torch.arange(side, dtype=torch.float64)
    transform = torch.cos(math.pi / side * order[:, None] * (order + 0.5)) * math.sqrt(2 / side)
    transform[0] /= math.sqrt(2)
    vertical, horizontal = order[:, None].expand(side, side), order.expand(side, side)
    ring = torch.bucketize(torch.hypot(vertical, horizontal) / side, torch.tensor(BAND_EDGES).double(), right=True)
    sector = (torch.atan2(vertical, horizontal) / (math.pi / 2 / DIRECTIONS)).long().clamp(max=DIRECTIONS - 1)
    member = torch.nn.functional.one_hot((ring * DIRECTIONS + sector).flatten()).double()
    member[0] = 0  # the patch's mean, which is among the colours
    return transform, member


def _colours(hr: Tensor) -> Tensor:
    pixels = hr.flatten(2).double()
    opponent = pixels.new_tensor([[1 / 3, 1 / 3, 1 / 3], [1, -1, 0], [1 / 2, 1 / 2, -1]])
    mean = pixels.mean(2, keepdim=True)
    centred = pixels - mean
    covariance = centred @ centred.mT / pixels.shape[2]
    variance = (opponent @ covariance @ opponent.T).diagonal(dim1=1, dim2=2)
    return torch.cat([(opponent @ mean)[..., 0], _decades(variance) / 2], dim=1)


def _gradients(luma: Tensor) -> Tensor:
    # Differences along the two diagonals lie at the same point, unlike those along rows and columns.
    falling, rising = luma[:, 1:, 1:] - luma[:, :-1, :-1], luma[:, 1:, :-1] - luma[:, :-1, 1:]
    right, down = (falling - rising).flatten(1) / 2, (falling + rising).flatten(1) / 2
    squared = right * right + down * down
    flat = squared == 0
    magnitude = squared.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)  # the root has no derivative at 0
    inverse = 1 / squared.clamp(min=ROUNDING_NOISE)
    cosine, sine = (right * right - down * down) * inverse, 2 * right * down * inverse
    mean, energy = magnitude.mean(1, dtype=torch.float64), squared.mean(1, dtype=torch.float64)
    sparseness = torch.log10((energy + ROUNDING_NOISE) / (mean.square() + ROUNDING_NOISE))
    moments = (
        _harmonics(magnitude, cosine, sine) / mean.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    )  # its square must not be 0
    return torch.cat([moments, sparseness[:, None]], dim=1)


def _harmonics(magnitude: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Means of m cos 2ka and of m sin 2ka, (B, 2 HARMONICS), from those of 2a by the addition theorem."""
    real, imaginary = magnitude * cosine, magnitude * sine
    terms = [real, imaginary]
    for _ in range(HARMONICS - 1):
        real, imaginary = real * cosine - imaginary * sine, imaginary * cosine + real * sine
        terms += [real, imaginary]
    return torch.stack([term.mean(1, dtype=torch.float64) for term in terms], dim=1)
