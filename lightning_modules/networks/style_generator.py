"""A compact style-based generator: noise becomes a style, and styles modulate the convolutions that draw a patch.

StyleGAN2 (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020) with few channels and
without noise inputs, so that a style always gives the same patch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.equalised import EqualisedLinear, activate

SMALLEST = 4
"""Side of the learned constant that a patch grows from."""

LEAST_CHANNELS = 8
CONTRAST = 0.5
"""Standard deviation of the colours at the start, as of photographs: no short run is spent on getting there."""

MAPPING_RATE = 0.01
"""How fast the mapping network learns, of the rate of all else (as published)."""


@dataclass(frozen=True)
class StyleSpec:
    """Sizes of a generator and of its discriminator.

    Attributes:
        z_dim: normal numbers that a patch is made of.
        w_dim: numbers of a style.
        mapping_layers: of the network between them.
        channels: of features up to 8 x 8 pixels, at least 8. With each doubling of the side beyond, they are halved,
            down to 8.

    Raises:
        ValueError: when a number is too small.
    """

    z_dim: int = 64
    w_dim: int = 64
    mapping_layers: int = 2
    channels: int = 64

    def __post_init__(self) -> None:
        for key, value in dataclasses.asdict(self).items():
            least = LEAST_CHANNELS if key == "channels" else 1
            if value < least:
                raise ValueError(f"the sizes of a style-based generator have {key} {value}; expected at least {least}")

    def at(self, side: int) -> int:
        """Channels of features with `side` x `side` pixels."""
        return max(LEAST_CHANNELS, self.channels * 8 // max(8, side))


def doublings(side: int) -> int:
    """How often 4 pixels are doubled to reach a side.

    Raises:
        ValueError: when they never do; the message gives the nearest side that is reached.
    """
    nearest = max(0, round(math.log2(max(1, side) / SMALLEST)))
    if side != SMALLEST << nearest:
        raise ValueError(
            f"a style-based generator makes patches of 4 * 2^n pixels, not of {side}; "
            f"set data.patch_size to {SMALLEST << nearest}, for instance"
        )
    return nearest


class ModulatedConv(nn.Module):
    """A convolution whose input channels a style scales; demodulation then gives each output unit expected variance.

    The same as weights of its own for each sample, (s_i w_oik) / sqrt(sum_ik (s_i w_oik)^2 + 1e-8), but computed on
    features, in one convolution for the whole batch (eqs. 1 and 3 of the paper).

    Args:
        inputs: channels of the input.
        outputs: of the output.
        kernel: side of the kernel, odd.
        w_dim: numbers of a style.
        demodulate: whether to divide.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, w_dim: int, demodulate: bool = True) -> None:
        super().__init__()
        self.affine = EqualisedLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self._scale = 1 / math.sqrt(inputs * kernel**2)
        self._demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, inputs, H, W) and styles (B, w_dim) -> (B, outputs, H, W)."""
        styles, weight = self.affine(w), self.weight * self._scale
        x = F.conv2d(x * styles[:, :, None, None], weight, padding=weight.shape[-1] // 2)
        if not self._demodulate:
            return x
        energy = F.linear(styles.square(), weight.square().sum((2, 3)))
        return x * (energy + 1e-8).rsqrt()[:, :, None, None]


class StyleLayer(nn.Module):
    """A modulated 3 x 3 convolution with bias and activation, of features that are doubled in side where asked to.

    Args:
        inputs: channels of the input.
        outputs: of the output.
        w_dim: numbers of a style.
        up: whether to double the side; before the convolution, since what is doubled after it has no detail.
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, w_dim)
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))
        self._up = up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, inputs, H, W) and styles (B, w_dim) -> (B, outputs, H, W) or (B, outputs, 2 H, 2 W)."""
        return activate(self.conv(upsample(x) if self._up else x, w) + self.bias)


class ToRGB(nn.Module):
    """A modulated 1 x 1 convolution to three channels, without demodulation.

    Args:
        inputs: channels of the features.
        w_dim: numbers of a style.
        contrast: standard deviation of the colours at the start, about.
    """

    def __init__(self, inputs: int, w_dim: int, contrast: float) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, w_dim, demodulate=False)
        nn.init.normal_(self.conv.weight, std=contrast)
        self.bias = nn.Parameter(torch.zeros(3, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, inputs, H, W) and styles (B, w_dim) -> (B, 3, H, W)."""
        return self.conv(x, w) + self.bias


def upsample(x: Tensor) -> Tensor:
    """Twice the side; bilinear, which is the published filter [1, 3, 3, 1] between zeros."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class StyleGenerator(nn.Module):
    """Normal numbers to a style, a style to a patch.

    The colours of a patch are the sum of what each resolution adds to the doubled colours of the one below. Each
    convolution has a style of its own; colours have that of the convolution which comes next, as in the authors' code.

    Args:
        spec: sizes.
        side: of a patch in pixels, 4 * 2^n.

    Attributes:
        z_dim: normal numbers that a style is made of.
        w_dim: numbers of a style.
        layers: styles of a patch: 2 log2(side) - 2.
        side: of a patch.

    Raises:
        ValueError: when there is no such side.
    """

    def __init__(self, spec: StyleSpec, side: int) -> None:
        super().__init__()
        self.spec, self.side = spec, side
        self.z_dim, self.w_dim = spec.z_dim, spec.w_dim
        steps = doublings(side)
        self.layers = 2 * steps + 2
        widths = [spec.at(SMALLEST << step) for step in range(steps + 1)]
        sizes = [spec.z_dim, *[spec.w_dim] * (spec.mapping_layers - 1), spec.w_dim]
        self.mappings = nn.ModuleList(EqualisedLinear(i, o, rate=MAPPING_RATE) for i, o in pairwise(sizes))
        self.constant = nn.Parameter(torch.randn(1, widths[0], SMALLEST, SMALLEST))
        self.first = StyleLayer(widths[0], widths[0], spec.w_dim)
        grown = list(pairwise(widths))
        self.grow = nn.ModuleList(StyleLayer(i, o, spec.w_dim, up=True) for i, o in grown)
        self.refine = nn.ModuleList(StyleLayer(o, o, spec.w_dim) for _, o in grown)
        contrast = CONTRAST / math.sqrt(len(widths))
        self.colours = nn.ModuleList(ToRGB(width, spec.w_dim, contrast) for width in widths)

    def mapping(self, z: Tensor) -> Tensor:
        """Standard normal numbers, (B, z_dim), to styles, (B, w_dim)."""
        w = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mappings:
            w = activate(layer(w))
        return w

    def spread(self, w: Tensor) -> Tensor:
        """One style for all layers: (B, w_dim) -> (B, layers, w_dim), a view."""
        return w[:, None].expand(-1, self.layers, -1)

    def synthesis(self, w: Tensor) -> Tensor:
        """Styles, (B, layers, w_dim), to patches, RGB (B, 3, side, side), about in [-1, 1]."""
        styles = w.unbind(1)
        x = self.first(self.constant.expand(len(w), -1, -1, -1), styles[0])
        rgb = self.colours[0](x, styles[1])
        for step, (grow, refine) in enumerate(zip(self.grow, self.refine, strict=True)):
            x = refine(grow(x, styles[2 * step + 1]), styles[2 * step + 2])
            rgb = upsample(rgb) + self.colours[step + 1](x, styles[2 * step + 3])
        return rgb

    def forward(self, z: Tensor) -> Tensor:
        """Patches, about in [-1, 1], of standard normal numbers, (B, z_dim)."""
        return self.synthesis(self.spread(self.mapping(z)))
