"""Networks that only take sides of certain multiples, made to take images of any size."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def pad_to(images: Tensor, right: int, below: int) -> Tensor:
    """Images with so many more columns on the right and rows below: mirrored, or repeated where too little is there.

    Args:
        images: (B, C, H, W).
        right: columns, 0 or more.
        below: rows, 0 or more.

    Returns:
        (B, C, H + below, W + right); the very images where there is nothing to add.
    """
    if not right and not below:
        return images
    mode = "reflect" if right < images.shape[-1] and below < images.shape[-2] else "replicate"
    return F.pad(images, (0, right, 0, below), mode)


class SidePadding:
    """Pads what a network is given to multiples of a number, and crops what it makes of it.

    As hooks on the network: keys and class stay what they are.

    Args:
        multiple: of the sides that the network takes.
        scale: by which the network enlarges.
    """

    def __init__(self, multiple: int, scale: int) -> None:
        self.multiple = multiple
        self.scale = scale
        self._sides = (0, 0)

    def attach(self, network: nn.Module) -> None:
        """Lets the network take any size from now on."""
        network.register_forward_pre_hook(self.before)
        network.register_forward_hook(self.after)

    def before(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Padded images in place of (B, C, H, W)."""
        height, width = inputs[0].shape[-2:]
        self._sides = height, width
        return pad_to(inputs[0], -width % self.multiple, -height % self.multiple), *inputs[1:]

    def after(self, _: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """What belongs to the images that were given."""
        height, width = self._sides
        return output[..., : height * self.scale, : width * self.scale]
