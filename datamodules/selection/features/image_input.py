"""Patches as a trained network expects its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

CHUNK = 64
"""Patches that go through a network at a time; enlarged to 224 pixels they take 40 MB."""


@dataclass(frozen=True)
class ImageInput:
    """Size and scaling of a network's input.

    Attributes:
        size: height and width in pixels; patches of other sizes are resized to it, with antialiasing.
        mean: per channel, of pixels in [0, 1].
        std: likewise, positive.
        interpolation: "bicubic" (with Pillow's kernel, a = -0.5) or "bilinear".
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    def __call__(self, hr: Tensor) -> Tensor:
        """RGB in [0, 1], (B, 3, side, side), resized and scaled, on its device."""
        mode = "bilinear" if self.interpolation == "bilinear" else "bicubic"
        if hr.shape[-2:] != self.size:
            hr = interpolate(hr, self.size, mode=mode, align_corners=False, antialias=True).clamp(0, 1)
        return (hr - hr.new_tensor(self.mean)[:, None, None]) / hr.new_tensor(self.std)[:, None, None]

    def through(self, network: Callable[[Tensor], Tensor], hr: Tensor) -> Tensor:
        """What the network, whose weights are frozen, makes of the patches: float32, (B, D), differentiable.

        A bounded number goes through it at a time; without a gradient to be kept, that bounds the memory.
        """
        return torch.cat([network(self(chunk)).flatten(1).float() for chunk in hr.split(CHUNK)])


def check_image_size(image_size: int | None) -> None:
    """Refuses a size that no picture has.

    Raises:
        ValueError: when it is not positive.
    """
    if image_size is not None and image_size <= 0:
        raise ValueError(f"image_size is {image_size}; expected a number of pixels, or null for the model's own")


def check_scaling(name: str, values: Sequence[float] | None) -> None:
    """Refuses a mean or standard deviation that is not one of pixels in [0, 1].

    Raises:
        ValueError: when there are not three values, or one lies outside [0, 1].
    """
    if values is None:
        return
    if len(values) != 3 or min(values) < 0 or max(values) > 1 or (name == "std" and 0 in values):
        raise ValueError(f"{name} is {list(values)}; expected three values for pixels in [0, 1], such as 0.5")
