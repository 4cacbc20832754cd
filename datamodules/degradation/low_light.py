"""Photographs taken in the dark."""

from __future__ import annotations

from torch import Tensor

from datamodules.degradation.base import Degradation
from datamodules.degradation.noise import read_noise, shot_noise
from datamodules.degradation.span import Span, checked_span, drawn


class LowLight(Degradation):
    """Darkens by gain * image ** gamma, then adds the noise that shows in the dark, of photons and of electronics.

    The darkening is that of F. Lv, Y. Li and F. Lu, "Attention Guided Low-light Image Enhancement with a Large Scale
    Low-light Simulation Dataset", IJCV 2021 (gamma 1.5 to 5, gain 0.5 to 1), the Poisson noise with a peak of 200 that
    of MBLLEN (F. Lv et al., BMVC 2018; gamma 2 to 3.5).

    Args:
        gamma: exponent, 1 or more, or [low, high] from which each sample draws; so for all arguments.
        gain: factor in [0, 1].
        photons: expected count in white, 1 or more; see `PoissonNoise`.
        sigma: standard deviation of the electronics' noise in levels of 255; see `GaussianNoise`.

    Raises:
        ValueError: when one is outside of its limits, or no number or ascending pair.
    """

    def __init__(
        self, gamma: Span = (2.0, 3.5), gain: Span = (0.5, 1.0), photons: Span = 200.0, sigma: Span = (0.0, 5.0)
    ) -> None:
        self.gamma = checked_span(self, "gamma", gamma, minimum=1)
        self.gain = checked_span(self, "gain", gain, minimum=0, maximum=1)
        self.photons = checked_span(self, "photons", photons, minimum=1)
        self.sigma = checked_span(self, "sigma", sigma, minimum=0)

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        gamma, gain = drawn(self.gamma, seed, "gamma", index), drawn(self.gain, seed, "gain", index)
        counted = shot_noise(gain * images**gamma, drawn(self.photons, seed, "photons", index), index, seed)
        return read_noise(counted, drawn(self.sigma, seed, "sigma", index), index, seed).clamp(0, 1)
