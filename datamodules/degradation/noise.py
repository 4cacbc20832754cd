"""Noise of a sensor: of its electronics, Gaussian, and of the light itself, Poisson."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.degradation.base import Degradation
from datamodules.degradation.span import Span, checked_span, drawn
from datamodules.randomness import generators, noise


class GaussianNoise(Degradation):
    """Adds independent normal numbers to every value, and clips to [0, 1] as a camera does.

    Args:
        sigma: standard deviation in levels of 255, or [low, high] from which each sample draws (blind denoising).
            15, 25 and 50 are customary (K. Zhang et al., "Beyond a Gaussian Denoiser", TIP 2017).

    Raises:
        ValueError: when it is negative, or no number or ascending pair.
    """

    def __init__(self, sigma: Span = 25.0) -> None:
        self.sigma = checked_span(self, "sigma", sigma, minimum=0)

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        return read_noise(images, drawn(self.sigma, seed, "sigma", index), index, seed).clamp(0, 1)


class PoissonNoise(Degradation):
    """Counts photons: a value v becomes Poisson(v * photons) / photons, clipped to [0, 1].

    Args:
        photons: expected count in white, 1 or more, or [low, high] from which each sample draws; fewer are noisier. The
            variance of v is v / photons.

    Raises:
        ValueError: when it is below 1, or no number or ascending pair.
    """

    def __init__(self, photons: Span = 100.0) -> None:
        self.photons = checked_span(self, "photons", photons, minimum=1)

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        return shot_noise(images, drawn(self.photons, seed, "photons", index), index, seed).clamp(0, 1)


def read_noise(images: Tensor, sigma: Tensor, index: Tensor, seed: int) -> Tensor:
    """`images` plus normal noise of a generator per sample (`randomness.noise`), not clipped.

    Args:
        images: (B, C, H, W).
        sigma: standard deviation in levels of 255, (B, 1, 1, 1).
        index: int64 (B,), of the samples.
        seed: of the degradation.
    """
    return images + noise(seed, "noise", index, images.shape[1:]) * (sigma / 255)


def shot_noise(images: Tensor, photons: Tensor, index: Tensor, seed: int) -> Tensor:
    """`images` as relative photon counts, not clipped.

    Counts are made of a varying number of random draws, so they come from a generator per sample
    (`randomness.generators`), on the CPU wherever the images are: batches and devices agree. Where images differ in
    their last bits, as after a blur on another device, counts may.

    Args:
        images: 0 or more, (B, C, H, W).
        photons: expected count for a value of 1, (B, 1, 1, 1).
        index: int64 (B,), of the samples.
        seed: of the degradation.
    """
    expected = (images * photons).cpu()
    sources = generators(seed, "counts", index.tolist())
    counts = [torch.poisson(one, generator=source) for one, source in zip(expected, sources, strict=True)]
    return torch.stack(counts).to(images.device) / photons
