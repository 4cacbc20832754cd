"""Criteria that ask not how much detail a patch has, but how much of what its LR has lost can be learned back.

Detail that nothing in LR tells of (noise, fine texture) only adds noise to the gradient and is memorised by a network
that sees few patches; a flat patch has nothing to teach. See docs/selection.md for what that is worth in decibels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.bicubic import upscale
from datamodules.selection.criteria import PixelCriterion, TrainedCriterion, grey

ROUNDING = 1 / 12
"""Variance, in squared grey levels, that rounding to uint8 adds: what is as small as this is no gain."""


class SharpeningGain(PixelCriterion):
    """What the best amount of plain sharpening gains over bicubic, in dB (0 or more); the higher, the more learnable.

    Sharpening is a shock filter (Osher and Rudin, SIAM J. Numer. Anal. 1990) in one explicit step: each pixel u of the
    upscaled LR moves away from the middle m of its neighbourhood's range [a, b], by d (1 - (2 d / (b - a))^2) with
    d = u - m, so that blurred edges get steeper and extremes stay. If that direction t and the error of bicubic e have
    the cosine c over the patch, the best multiple of t leaves 1 - c^2 of the squared error: the gain is
    -10 log10(1 - c^2). Computed on luma; neighbourhoods are 2 scale + 1 pixels wide, the reach of the bicubic kernel.
    """

    label: ClassVar[str] = "gain of sharpening over bicubic [dB]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `PixelCriterion`."""
        scale = hr.shape[-1] // lr.shape[-1]
        blurred = upscale(grey(lr).float().unsqueeze(1), scale).squeeze(1)
        error, step = grey(hr).float() - blurred, _sharpening(blurred, 2 * scale + 1)
        explained = _mean(error * step).clamp(min=0).square()
        cosine2 = explained / ((_mean(step.square()) + ROUNDING) * (_mean(error.square()) + ROUNDING))
        return -10 * torch.log10(1 - cosine2)


class SRGain(TrainedCriterion):
    """What a trained network gains over bicubic, in dB (may be negative); the higher, the more learnable.

    10 log10 of the ratio of mean squared errors (RGB, clipped), to each of which the variance of rounding is added. The
    reducible loss of Mindermann et al. (RHO-LOSS, ICML 2022, arXiv 2206.07137), as a ratio so that faint edges count. A
    few hundred updates are enough: at 500, scores have a rank correlation of 0.96 with those at 2,000.
    """

    label: ClassVar[str] = "gain of the trained network over bicubic [dB]"
    complex_when: ClassVar[Literal["low", "high"]] = "high"

    def score(self, lr: Tensor, hr: Tensor) -> Tensor:
        """See `TrainedCriterion`."""
        truth = hr.float()
        bicubic = upscale(lr.float(), hr.shape[-1] // lr.shape[-1]).clamp(0, 255)
        squared = [_mean((truth - image).square()) + ROUNDING for image in (bicubic, self.super_resolved(lr, hr))]
        return 10 * torch.log10(squared[0] / squared[1])


def _sharpening(images: Tensor, width: int) -> Tensor:
    """The direction that a shock filter moves the pixels of (B, H, W) images in, grey levels."""
    padded = F.pad(images.unsqueeze(1), [width // 2] * 4, mode="replicate")
    highest, lowest = F.max_pool2d(padded, width, 1), -F.max_pool2d(-padded, width, 1)
    distance = images - ((highest + lowest) / 2).squeeze(1)
    span = (highest - lowest).squeeze(1).clamp(min=1)
    return distance * (1 - (2 * distance / span).square()).clamp(min=0)


def _mean(images: Tensor) -> Tensor:
    """Per image, float64 (B,)."""
    return images.flatten(1).mean(1, dtype=torch.float64)
