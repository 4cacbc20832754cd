"""Rain and haze."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datamodules.augmentation.counter_rng import uniform
from datamodules.degradation.base import Degradation
from datamodules.degradation.filtering import correlate, line_kernels
from datamodules.degradation.span import Span, checked_span, drawn
from datamodules.randomness import generators

_VERTICAL = 90.0  # degrees
_FRAME = 320  # pixels; smaller images are windows of a scene this large, so that patches look like parts of photographs
_WAVES = 4  # of the uneven part of the depth; enough that none is seen by itself
_UNEVEN = 0.15  # height of each wave, where the whole depth is 1


class RainStreaks(Degradation):
    """Lays bright streaks over the image: sparse drops of random brightness, motion-blurred along one direction.

    The image J and the streaks S are blended as I = 1 - (1 - J) (1 - S), the screen model of Y. Luo, Y. Xu and H. Ji,
    "Removing Rain from a Single Image via Discriminative Sparse Coding", ICCV 2015. Sets such as Rain100 (W. Yang et
    al., "Deep Joint Rain Detection and Removal from a Single Image", CVPR 2017) add up instead and clip, I = J + S,
    which is the same on dark ground. Streaks of one image share direction and length, and differ in brightness.

    Args:
        density: drops per pixel in [0, 1], or [low, high] from which each sample draws; so for all arguments.
        length: of streaks in pixels, 1 or more.
        angle: of streaks in degrees from the vertical; positive ones lean to the right at their lower end.
        brightness: of the brightest streak, in [0, 1].

    Raises:
        ValueError: when one is outside of its limits, or no number or ascending pair.
    """

    def __init__(
        self,
        density: Span = (0.004, 0.012),
        length: Span = (13.0, 29.0),
        angle: Span = (-25.0, 25.0),
        brightness: Span = (0.4, 0.8),
    ) -> None:
        self.density = checked_span(self, "density", density, minimum=0, maximum=1)
        self.length = checked_span(self, "length", length, minimum=1)
        self.angle = checked_span(self, "angle", angle)
        self.brightness = checked_span(self, "brightness", brightness, minimum=0, maximum=1)

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        streaks = self._streaks(index, seed, *images.shape[-2:])
        return (1 - (1 - images) * (1 - streaks)).clamp(0, 1)

    def _streaks(self, index: Tensor, seed: int, height: int, width: int) -> Tensor:
        """(B, 1, H, W) in [0, 1]."""
        angle = drawn(self.angle, seed, "angle", index) - _VERTICAL
        lines = line_kernels(drawn(self.length, seed, "length", index), angle, longest=self.length[1])
        margin = lines.shape[-1] - 1  # streaks come in from outside
        drops = self._drops(index, seed, height + margin, width + margin)
        return correlate(drops, lines).clamp(max=1) * drawn(self.brightness, seed, "brightness", index)

    def _drops(self, index: Tensor, seed: int, height: int, width: int) -> Tensor:
        """(B, 1, H, W): 0 where there is no drop, else its brightness, uniform over (0, 1]."""
        density = drawn(self.density, seed, "density", index)
        sources = generators(seed, "drops", index.tolist())
        chance = torch.stack([torch.rand(1, height, width, generator=one) for one in sources]).to(index.device)
        return torch.where(chance < density, 1 - chance / density, 0)


class Haze(Degradation):
    """Haze by atmospheric scattering: I = J t + A (1 - t) with the transmission t = exp(-beta d).

    Photographs come without depth, so d is a stand-in: a scene that recedes from 0 at the lower border to 1 at the
    upper one, made uneven by four slow waves of random direction and phase. An image smaller than 320 pixels is a
    random window of such a scene.

    The ranges are those of RESIDE's indoor training set: B. Li et al., "Benchmarking Single-Image Dehazing and Beyond",
    TIP 2019, where d comes from depth cameras.

    Args:
        beta: scattering, 0 (clear) or more, or [low, high] from which each sample draws.
        airlight: A, the grey of haze itself in [0, 1], likewise.

    Raises:
        ValueError: when one is outside of its limits, or no number or ascending pair.
    """

    def __init__(self, beta: Span = (0.6, 1.8), airlight: Span = (0.7, 1.0)) -> None:
        self.beta = checked_span(self, "beta", beta, minimum=0)
        self.airlight = checked_span(self, "airlight", airlight, minimum=0, maximum=1)

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        beta, airlight = drawn(self.beta, seed, "beta", index), drawn(self.airlight, seed, "airlight", index)
        transmission = torch.exp(-beta * _depth(index, seed, *images.shape[-2:]))
        return (images * transmission + airlight * (1 - transmission)).clamp(0, 1)


def _depth(index: Tensor, seed: int, height: int, width: int) -> Tensor:
    """The stand-in for depth, (B, 1, H, W) in [0, 1]."""
    top, left = uniform(seed, "window", index, count=2).unbind(1)
    down, right = _places(height, top).unsqueeze(2), _places(width, left).unsqueeze(1)
    depth = 1 - down
    waves = uniform(seed, "waves", index, count=3 * _WAVES).view(-1, _WAVES, 3, 1, 1)
    for wave in waves.unbind(1):
        across, along, phase = (2 * wave[:, 0] - 1), (2 * wave[:, 1] - 1), wave[:, 2]
        depth = depth + _UNEVEN * torch.cos(2 * math.pi * (across * right + along * down + phase))
    return depth.clamp(0, 1).unsqueeze(1)


def _places(length: int, start: Tensor) -> Tensor:
    """Where pixels lie in the scene, (B, length) in (0, 1); draws in [0, 1), (B,), place the window."""
    scene = max(length, _FRAME)
    first = (start * (scene - length + 1)).floor()
    pixels = torch.arange(length, device=start.device) + 0.5
    return (first.unsqueeze(1) + pixels) / scene
