"""A compact residual discriminator of patches, with the minibatch's standard deviation."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.equalised import EqualisedConv, EqualisedLinear, activate
from lightning_modules.networks.style_generator import SMALLEST, StyleSpec, doublings

GROUP = 4
"""Patches that a standard deviation is taken over (as published)."""


class ResidualBlock(nn.Module):
    """Halves the side: two convolutions beside a projection (Karras et al., CVPR 2020, "residual nets").

    Args:
        inputs: channels of the input.
        outputs: of the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = EqualisedConv(inputs, inputs, 3)
        self.after = EqualisedConv(inputs, outputs, 3)
        self.skip = EqualisedConv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
        features = activate(self.after(F.avg_pool2d(activate(self.before(x)), 2)))
        return (features + self.skip(F.avg_pool2d(x, 2))) / math.sqrt(2)


def with_deviation(x: Tensor) -> Tensor:
    """Adds a channel that holds how much patches differ: the mean standard deviation within a group of neighbours.

    Neighbours, unlike the published groups, are on the same process when a batch is split over several, so that the
    number of processes changes nothing where it leaves whole groups of four.

    Args:
        x: (B, C, H, W). A group has four patches, or else the most that B is a multiple of.

    Returns:
        (B, C + 1, H, W).
    """
    group = max(size for size in range(1, GROUP + 1) if len(x) % size == 0)
    groups = x.reshape(-1, group, *x.shape[1:]).float()
    deviation = (groups.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    channel = deviation.repeat_interleave(group).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel.to(x.dtype)], dim=1)


class Discriminator(nn.Module):
    """Patches to logits; large means real.

    Args:
        spec: sizes, those of the generator.
        side: of a patch in pixels, 4 * 2^n.

    Raises:
        ValueError: when there is no such side.
    """

    def __init__(self, spec: StyleSpec, side: int) -> None:
        super().__init__()
        widths = [spec.at(side >> step) for step in range(doublings(side) + 1)]
        self.from_rgb = EqualisedConv(3, widths[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(i, o) for i, o in pairwise(widths)))
        self.last = EqualisedConv(widths[-1] + 1, widths[-1], 3)
        self.hidden = EqualisedLinear(widths[-1] * SMALLEST**2, widths[-1])
        self.logit = EqualisedLinear(widths[-1], 1)

    def forward(self, patches: Tensor) -> Tensor:
        """RGB in [-1, 1], (B, 3, side, side), to logits, (B,)."""
        features = self.blocks(activate(self.from_rgb(patches)))
        features = activate(self.last(with_deviation(features)))
        return self.logit(activate(self.hidden(features.flatten(1)))).squeeze(1)
