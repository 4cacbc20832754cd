"""The degradation of super-resolution: fewer pixels."""

from __future__ import annotations

from torch import Tensor

from datamodules.bicubic import downscale
from datamodules.degradation.base import Degradation


class Bicubic(Degradation):
    """MATLAB's bicubic ``imresize`` by 1 / scale in floating point, without rounding to 8 bits (`datamodules.bicubic`).

    Meant for chains such as blur, `Bicubic`, noise, `JPEG`; the overshoots of the cubic kernel are clipped.

    Args:
        scale: by which sides shrink.

    Raises:
        ValueError: when it is no whole number of 1 or more.
    """

    def __init__(self, scale: int) -> None:
        if not isinstance(scale, int) or scale < 1:
            raise ValueError(f"Bicubic: scale is {scale}; expected a whole number of 1 or more")
        self.factor = scale

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`; nothing is random."""
        return downscale(images, self.factor).clamp(0, 1)
