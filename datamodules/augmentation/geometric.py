"""Flips and quarter turns. Bicubic reduction commutes with them: its kernel and its pixel grid are symmetric."""

from __future__ import annotations

import torch

from datamodules.augmentation.base import PairAugmentation, choose
from datamodules.pair import PairBatch


class RandomFlip(PairAugmentation):
    """Mirrors left-right and, independently, top-bottom.

    Args:
        probability: of each of the two flips.
    """

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with some samples mirrored."""
        for decision, axis in (("left-right", -1), ("top-bottom", -2)):
            flipped = batch.with_images(lr=batch.lr.flip(axis), hr=batch.hr.flip(axis))
            batch = choose(self.decide(batch, seed, decision), flipped, batch)
        return batch


class RandomRotate90(PairAugmentation):
    """Turns by 90 degrees, counter-clockwise. With `RandomFlip`, all eight symmetries of the square are reached.

    Args:
        probability: share of the samples that are turned.
    """

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with some samples turned.

        Raises:
            ValueError: when the patches are not square.
        """
        height, width = batch.hr.shape[-2:]
        if height != width:
            raise ValueError(
                f"RandomRotate90 got HR patches of {height} x {width} pixels (height x width) and can turn square "
                "ones only: cut square patches, or leave RandomRotate90 (recipes plain and strong have it) out"
            )
        turned = batch.with_images(lr=torch.rot90(batch.lr, dims=(-2, -1)), hr=torch.rot90(batch.hr, dims=(-2, -1)))
        return choose(self.decide(batch, seed), turned, batch)
