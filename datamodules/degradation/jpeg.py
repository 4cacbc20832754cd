"""Artefacts of compression."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.degradation.base import Degradation
from datamodules.degradation.span import checked_span, drawn
from datamodules.pair import to_uint8


class JPEG(Degradation):
    """Rounds to 8 bits, compresses with libjpeg at half the resolution of colours (4:2:0), and decompresses.

    On the CPU and with Pillow: the encoders of GPUs give other pixels, and torchvision's are to be removed.

    Args:
        quality: from 1 (worst) to 100, or [low, high] from which each sample draws a whole number, both ends included.
            10 to 40 are customary (C. Dong et al., "Compression Artifacts Reduction by a Deep Convolutional
            Network", ICCV 2015).

    Raises:
        ValueError: when it is outside of 1 to 100, not whole, or no number or ascending pair.
    """

    def __init__(self, quality: int | Sequence[int] = 30) -> None:
        low, high = checked_span(self, "quality", quality, minimum=1, maximum=100)
        if low != int(low) or high != int(high):
            raise ValueError(f"JPEG: quality is {quality}; expected whole numbers from 1 to 100")
        self.quality = int(low), int(high)

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        low, high = self.quality
        qualities = drawn((low, high + 1), seed, "quality", index).flatten().long().clamp(max=high).tolist()
        levels = to_uint8(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        decoded = np.stack([_compressed(*one) for one in zip(levels, qualities, strict=True)])
        return torch.from_numpy(decoded).to(images.device).permute(0, 3, 1, 2).to(images.dtype).contiguous() / 255


def _compressed(levels: np.ndarray, quality: int) -> np.ndarray:
    """uint8 (H, W, 3) after a trip through a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))
