"""Criteria: what makes a patch worth learning from, as one number.

All work on uint8 pixels, in integers as far as they go (floats hold them where that is faster, exactly), so that scores
are the same on every machine and in every batch. `grey` is ITU-R BT.601 luma in full range, 0.299 R + 0.587 G +
0.114 B: what OpenCV and Pillow call grey, and what the published rules are stated on.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.bicubic import upscale
from datamodules.pair import PairBatch
from datamodules.selection.interfaces import Criterion

IDENTICAL_DB = 100.0
"""PSNR of a patch that bicubic brings back to the last bit, such as a flat one, and the upper limit of all."""

TINY = 1e-12
"""Squared grey levels: keeps the quotient of a flat patch at 0."""

_PART_PIXELS = {"cpu": 1 << 18}  # HR pixels worked on at a time, to stay in a CPU's cache
_PART_PIXELS_ELSEWHERE = 1 << 22  # other devices: only to bound memory
_EXACT_SUM = 256  # so many squares of uint8 add up to less than 2**24, exactly in float32


def grey(images: Tensor) -> Tensor:
    """Luma of RGB images, rounded: bit for bit that of Pillow's `convert("L")`.

    Args:
        images: uint8, (B, 3, H, W).

    Returns:
        int16 in 0..255, (B, H, W).
    """
    red, green, blue = images.unbind(1)
    # Weights are multiples of 2**-16: all sums are below 2**24 of these, and so exact in float32.
    luma = red.float().mul_(19595).add_(green.float(), alpha=38470).add_(blue.float(), alpha=7471)
    return luma.add_(1 << 15).mul_(2**-16).to(torch.int16)


class PixelCriterion(Criterion):
    """A criterion that is computed from pixels alone, a cacheful of patches at a time."""

    def __call__(self, pairs: PairBatch) -> Tensor:
        """See `Criterion`.

        Raises:
            TypeError: when pixels are not uint8.
        """
        if pairs.hr.dtype != torch.uint8:
            raise TypeError(f"criteria score uint8 patches, not {pairs.hr.dtype}")
        pixels = _PART_PIXELS.get(pairs.hr.device.type, _PART_PIXELS_ELSEWHERE)
        some = max(1, pixels // pairs.hr[0, 0].numel())
        parts = zip(pairs.lr.split(some), pairs.hr.split(some), strict=True)
        return torch.cat([self.score(lr, hr) for lr, hr in parts])

    @abstractmethod
    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Scores of some patches, uint8 (B, 3, h, w) and (B, 3, H, W): floating point, (B,)."""


class PSNRBicubic(PixelCriterion):
    """PSNR between a patch and what bicubic upscaling makes of its LR, in dB; the lower, the more detail LR has lost.

    The rule of Cho et al. (arXiv 2509.14777), who keep what is below 23 dB at x4. Both pictures are rounded to uint8 as
    images are, LR and upscaled as in MATLAB. At most `IDENTICAL_DB`.

    Args:
        colour: `grey` turns patch and LR to luma first, as published; `rgb` takes the mean
            squared error over the three channels.

    Raises:
        ValueError: for another colour.
    """

    label: ClassVar[str] = "PSNR of bicubic [dB]"
    complex_when: ClassVar[Literal["low", "high"]] = "low"

    def __init__(self, colour: Literal["grey", "rgb"] = "grey") -> None:
        if colour not in ("grey", "rgb"):
            raise ValueError(f"PSNRBicubic: colour is {colour!r}; expected grey or rgb")
        self.colour = colour

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        scale = hr.shape[-1] // lr.shape[-1]
        if self.colour == "grey":
            truth, small = grey(hr).unsqueeze(1), grey(lr).to(torch.uint8).unsqueeze(1)
        else:
            truth, small = hr.to(torch.int16), lr
        squares = truth.sub_(upscale(small, scale)).float().square_()
        total = sum(part.sum(-1).long() for part in squares.split(_EXACT_SUM, -1))
        mse = torch.as_tensor(total).sum((1, 2)).double() / truth[0].numel()
        return (10 * torch.log10(255**2 / mse)).clamp(max=IDENTICAL_DB)


class SobelMagnitude(PixelCriterion):
    """Mean gradient magnitude of the grey patch, in grey levels per pixel; the higher, the more edges and texture.

    The measure of DCSR (IEEE SPL 2023). The gradient is Sobel's, divided by 8 so that a ramp of one level per pixel has
    gradient 1; the border pixel is repeated outside.
    """

    label: ClassVar[str] = "mean Sobel magnitude [grey levels per pixel]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        return _gradient_magnitude(grey(hr)).mean((1, 2), dtype=torch.float64)


class GreyEntropy(PixelCriterion):
    """Shannon entropy of the histogram of the 256 grey levels, in bits (0 to 8); the higher, the more varied.

    One half of `Entropy`. A patch of N pixels reaches at most log2(N) bits.
    """

    label: ClassVar[str] = "entropy of grey levels [bits]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        return _entropy(grey(hr))


class GradientEntropy(PixelCriterion):
    """Shannon entropy of the histogram of gradient magnitudes, in bits; the higher, the more kinds of edges.

    The gradient is that of `SobelMagnitude`. Bins are one grey level per pixel wide, from 0 to the largest possible
    magnitude, 180.
    """

    label: ClassVar[str] = "entropy of gradient magnitudes [bits]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        return _entropy(_gradient_magnitude(grey(hr)).to(torch.int16))


class Entropy(PixelCriterion):
    """Weighted sum of `GreyEntropy` and `GradientEntropy`, in bits; the higher, the more varied and the more textured.

    The measure of complexity of TripleD (arXiv 2504.14826).

    Args:
        grey_weight: of the entropy of grey levels.
        gradient_weight: of the entropy of gradient magnitudes.

    Raises:
        ValueError: when a weight is negative or not finite, or both are 0.
    """

    label: ClassVar[str] = "entropy of grey levels and gradients [bits]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def __init__(self, grey_weight: float = 1.0, gradient_weight: float = 1.0) -> None:
        weights = (grey_weight, gradient_weight)
        if not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
            raise ValueError(
                f"Entropy: grey_weight is {grey_weight} and gradient_weight {gradient_weight}; expected 0 or more, and "
                "one of them above 0"
            )
        self.grey_weight = grey_weight
        self.gradient_weight = gradient_weight

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        luma = grey(hr)
        gradients = _gradient_magnitude(luma).to(torch.int16)
        return self.grey_weight * _entropy(luma) + self.gradient_weight * _entropy(gradients)


class HighFrequencyEnergy(PixelCriterion):
    """Root mean square of what the grey patch has beyond a frequency, in grey levels; the higher, the more fine detail.

    The grey patch less its orthonormal DCT-II (even extension, so that borders make no false detail) below the cutoff
    in both directions. An amount, not a share of the energy: a share does not tell a faint texture from a strong one,
    and is noise on flat patches.

    Args:
        cutoff: share of the Nyquist frequency, between 0 and 1; null is 1 / scale, the highest that LR can carry.

    Raises:
        ValueError: when the cutoff lies outside.
    """

    label: ClassVar[str] = "detail beyond the cutoff, RMS [grey levels]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def __init__(self, cutoff: float | None = None) -> None:
        if cutoff is not None and not 0 < cutoff < 1:
            raise ValueError(
                f"HighFrequencyEnergy: cutoff is {cutoff}; expected between 0 and 1, such as 0.25, or null"
            )
        self.cutoff = cutoff

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        cutoff = lr.shape[-1] / hr.shape[-1] if self.cutoff is None else self.cutoff
        luma = grey(hr).double()
        rows, columns = (_cosines(side, cutoff, hr.device) for side in luma.shape[1:])
        low = rows.T @ (rows @ luma @ columns.T) @ columns
        return (luma - low).square().mean((1, 2)).sqrt()


class SharpeningGain(PixelCriterion):
    """How much RMS error plain sharpening would take off bicubic's, in grey levels; the higher, the more learnable.

    Not how much detail a patch has, but how much of what its LR has lost can be brought back: detail that nothing in LR
    tells of (noise, fine texture) is only memorised by a network that sees few patches, and a flat patch has nothing to
    teach. docs/selection.md shows what that is worth.

    Sharpening is a shock filter (Osher and Rudin, SIAM J. Numer. Anal. 1990) in one explicit step: each pixel u of the
    upscaled LR moves away from the middle m of its neighbourhood's range [a, b], by d (1 - (2 d / (b - a))^2) with
    d = u - m, so that blurred edges get steeper and extremes stay. If that direction and the error of bicubic have the
    cosine c over the patch, the best amount of it leaves sqrt(1 - c^2) of the RMS error. Computed on luma;
    neighbourhoods are 2 scale + 1 pixels wide, the reach of the bicubic kernel.
    """

    label: ClassVar[str] = "error of bicubic that sharpening removes, RMS [grey levels]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        scale = hr.shape[-1] // lr.shape[-1]
        blurred = upscale(grey(lr).float().unsqueeze(1), scale).squeeze(1)
        error, step = grey(hr).float() - blurred, _sharpening(blurred, 2 * scale + 1)
        before, power = mean_per_patch(error.square()), mean_per_patch(step.square())
        removed = mean_per_patch(error * step).clamp(min=0).square() / power.clamp(min=TINY)
        return before.sqrt() - (before - removed).clamp(min=0).sqrt()


def _gradient_magnitude(luma: Tensor) -> Tensor:
    """Sobel's, in levels per pixel: int16 (B, H, W) to float32 (B, H, W)."""
    padded = F.pad(luma.float().unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    across = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    horizontal = down[:, :, 2:] - down[:, :, :-2]
    vertical = across[:, 2:] - across[:, :-2]
    return (horizontal.square() + vertical.square()).sqrt_().div_(8)


def _entropy(levels: Tensor) -> Tensor:
    """Bits: integers in 0..255, (B, H, W), to (B,)."""
    own = levels.flatten(1).long() + 256 * torch.arange(len(levels), device=levels.device)[:, None]
    counts = torch.bincount(own.flatten(), minlength=256 * len(levels)).view(-1, 256)
    shares = counts.double() / levels[0].numel()
    return torch.special.entr(shares).sum(1) / math.log(2)


def _cosines(side: int, cutoff: float, device: torch.device) -> Tensor:
    """Rows of the orthonormal DCT-II below a share of the Nyquist frequency: float64 (frequencies, side)."""
    frequency = torch.arange(side, dtype=torch.float64, device=device)
    frequency = frequency[frequency < cutoff * side - 1e-9, None]  # a product of floats may exceed the integer
    position = torch.arange(side, dtype=torch.float64, device=device) + 0.5
    rows = math.sqrt(2 / side) * torch.cos(math.pi / side * frequency * position)
    rows[0] *= math.sqrt(0.5)
    return rows


def _sharpening(images: Tensor, width: int) -> Tensor:
    """The direction that a shock filter moves the pixels of (B, H, W) images in, grey levels."""
    padded = F.pad(images.unsqueeze(1), [width // 2] * 4, mode="replicate")
    highest, lowest = F.max_pool2d(padded, width, 1), -F.max_pool2d(-padded, width, 1)
    distance = images - ((highest + lowest) / 2).squeeze(1)
    span = (highest - lowest).squeeze(1).clamp(min=1)
    return distance * (1 - (2 * distance / span).square()).clamp(min=0)


def mean_per_patch(values: Tensor) -> Tensor:
    """(B, ...) to float64 (B,)."""
    return values.flatten(1).mean(1, dtype=torch.float64)
