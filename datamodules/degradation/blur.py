"""Blur of a lens out of focus, and of a camera that moved."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datamodules.degradation.base import Degradation
from datamodules.degradation.filtering import blur, line_kernels
from datamodules.degradation.span import Span, checked_span, drawn

_REACH = 4  # standard deviations after which a Gaussian is cut off, as scipy.ndimage does
_SHARP = 1e-3  # pixels; a Gaussian as narrow as this has a single tap


class GaussianBlur(Degradation):
    """Convolves with a Gaussian; borders are mirrored.

    Args:
        sigma: standard deviation in pixels, or [low, high] from which each sample draws; 0 leaves it sharp. 1.6 is
            customary in super-resolution (K. Zhang, W. Zuo and L. Zhang, "Learning a Single Convolutional
            Super-Resolution Network for Multiple Degradations", CVPR 2018).

    Raises:
        ValueError: when it is negative, or no number or ascending pair.
    """

    def __init__(self, sigma: Span = 1.6) -> None:
        self.sigma = checked_span(self, "sigma", sigma, minimum=0)
        self._radius = math.ceil(_REACH * self.sigma[1])

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        sigma = drawn(self.sigma, seed, "sigma", index).view(-1, 1).clamp(min=_SHARP)
        steps = torch.arange(-self._radius, self._radius + 1, device=images.device)
        weights = torch.exp(-0.5 * (steps / sigma) ** 2)
        weights /= weights.sum(1, keepdim=True)
        return blur(blur(images, weights.unsqueeze(2)), weights.unsqueeze(1))


class MotionBlur(Degradation):
    """Averages along a line, as when the camera moves straight and evenly during the exposure; borders are mirrored.

    Kernels are lines with smooth edges (`filtering.line_kernels`), normalised to sum 1.

    Args:
        length: of the line in pixels, 1 (sharp) or more, or [low, high] from which each sample draws.
        angle: of the line in degrees, counter-clockwise from the horizontal, likewise.

    Raises:
        ValueError: when `length` is below 1, or either is no number or ascending pair.
    """

    def __init__(self, length: Span = (9.0, 21.0), angle: Span = (0.0, 180.0)) -> None:
        self.length = checked_span(self, "length", length, minimum=1)
        self.angle = checked_span(self, "angle", angle)

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        length, angle = drawn(self.length, seed, "length", index), drawn(self.angle, seed, "angle", index)
        lines = line_kernels(length, angle, longest=self.length[1])
        return blur(images, lines / lines.sum((1, 2), keepdim=True))
