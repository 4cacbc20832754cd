"""Augmentations that resize: a blurred rectangle, and objects at a smaller size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.augmentation.base import PairAugmentation, choose
from datamodules.augmentation.counter_rng import uniform
from datamodules.augmentation.rectangle import paste_rectangles
from datamodules.bicubic import downscale, imresize, upscale
from datamodules.pair import PairBatch


class CutBlur(PairAugmentation):
    """Makes a random rectangle blurred: HR becomes U(LR) there, and LR becomes D(U(LR)), U and D being bicubic.

    The pair stays consistent, and the network meets regions in which there is nothing to sharpen. After J. Yoo et al.,
    "Rethinking Data Augmentation for Image Super-resolution", CVPR 2020, which differs: there the INPUT is U(LR), as
    large as HR, a rectangle of it is replaced by HR (or all but a rectangle), and the target stays HR. A network whose
    input has LR's size cannot be shown HR, so here the target gives way instead of the input. Within two LR
    pixels of the rectangle's border (the radius of the bicubic kernel) LR is no exact reduction of HR.

    Args:
        probability: share of the samples that get a rectangle.
    """

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with blurred rectangles in some samples."""
        hr = upscale(batch.lr, batch.scale).clamp(0, 1)
        blurred = batch.with_images(lr=downscale(hr, batch.scale).clamp(0, 1), hr=hr)
        return choose(self.decide(batch, seed), paste_rectangles(blurred, batch, seed), batch)


def _mirror_tiled(images: Tensor, height: int, width: int) -> Tensor:
    """Repeats (B, C, h, w) images, every other one mirrored with its edge pixels doubled, to (B, C, height, width)."""
    for axis, length in ((-2, height), (-1, width)):
        side = images.shape[axis]
        position = torch.arange(length, device=images.device) % (2 * side)
        images = images.index_select(axis, torch.minimum(position, 2 * side - 1 - position))
    return images


class ScaleJitter(PairAugmentation):
    """Shows the content smaller: HR shrunk by a random factor and mirror-tiled to its old size, LR made anew from it.

    The shrunk HR is cropped to multiples of the scale, so that the mirror lines fall between LR pixels. The new LR is
    not rounded to 8 bits. Samples are resized in groups of one factor.

    Args:
        factors: what the sides are multiplied by, in (0, 1); all equally likely.
        probability: share of the samples that are shrunk.

    Raises:
        ValueError: when there is no factor, one is outside (0, 1), or `probability` is outside [0, 1].
    """

    def __init__(self, factors: Sequence[float] = (0.75, 0.5), probability: float = 0.5) -> None:
        super().__init__(probability)
        if not factors or not all(0 < factor < 1 for factor in factors):
            raise ValueError(f"ScaleJitter: factors are {list(factors)}, expected one or more numbers in (0, 1)")
        self.factors = tuple(factors)

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with some samples shrunk and tiled.

        Raises:
            ValueError: when a factor shrinks HR below the size of one LR pixel.
        """
        number = (uniform(seed, "factor", batch.index)[:, 0] * len(self.factors)).long()
        number = torch.where(self.decide(batch, seed), number, -1)
        lr, hr = batch.lr.clone(), batch.hr.clone()
        for position, factor in enumerate(self.factors):
            rows = (number == position).nonzero()[:, 0]
            if len(rows):
                hr[rows] = self._shrunk(batch.hr[rows], factor, batch.scale)
                lr[rows] = downscale(hr[rows], batch.scale).clamp(0, 1)
        return batch.with_images(lr=lr, hr=hr)

    @staticmethod
    def _shrunk(hr: Tensor, factor: float, scale: int) -> Tensor:
        small = imresize(hr, factor).clamp(0, 1)
        height, width = (side // scale * scale for side in small.shape[-2:])
        if not height or not width:
            raise ValueError(
                f"ScaleJitter: factor {factor} makes HR patches of {hr.shape[-2]} x {hr.shape[-1]} smaller than the "
                f"scale {scale}: leave that factor out or cut larger patches"
            )
        return _mirror_tiled(small[..., :height, :width], *hr.shape[-2:])
