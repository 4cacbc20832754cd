"""Augmentations that mix two samples of a batch.

Partners are the positions 2i and 2i + 1 of a batch; the last sample of an odd batch has none and stays as it is. Each
partner decides for itself. With an even batch per process, a pair never spans two processes, so that the result does
not depend on how many there are (given that consecutive samples stay together).
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.augmentation.base import PairAugmentation, choose
from datamodules.augmentation.counter_rng import symmetric_beta
from datamodules.augmentation.rectangle import paste_rectangles
from datamodules.pair import PairBatch


def _partners(batch: PairBatch) -> PairBatch:
    """The same batch with each sample's pixels replaced by its partner's."""
    position = torch.arange(len(batch), device=batch.lr.device)
    partner = position ^ 1
    partner = torch.where(partner < len(batch), partner, position)
    return batch.with_images(lr=batch.lr[partner], hr=batch.hr[partner])


class Mixup(PairAugmentation):
    """Blends a sample with its partner: share * sample + (1 - share) * partner, share ~ Beta(alpha, alpha).

    H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; for SR and with the default alpha, J. Yoo
    et al., "Rethinking Data Augmentation for Image Super-resolution", CVPR 2020. LR is linear in HR, so blends of pairs
    are pairs.

    Args:
        alpha: both parameters of the Beta distribution, positive; 1 is uniform, larger values mix more evenly.
        probability: share of the samples that are mixed.

    Raises:
        ValueError: when `alpha` is not positive or `probability` is outside [0, 1].
    """

    def __init__(self, alpha: float = 1.2, probability: float = 0.5) -> None:
        super().__init__(probability)
        if not alpha > 0:
            raise ValueError(f"Mixup: alpha is {alpha}, expected a positive number (1 mixes uniformly)")
        self.alpha = alpha

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with some samples blended with their partners."""
        partners = _partners(batch)
        share = symmetric_beta(self.alpha, seed, "share", batch.index).view(-1, 1, 1, 1)

        def blended(own: Tensor, partner: Tensor) -> Tensor:
            return torch.lerp(partner, own, share.to(own.dtype))

        mixed = batch.with_images(lr=blended(batch.lr, partners.lr), hr=blended(batch.hr, partners.hr))
        return choose(self.decide(batch, seed), mixed, batch)


class CutMix(PairAugmentation):
    """Pastes a random rectangle of the partner, at the same place, in register on LR and HR.

    S. Yun et al., "CutMix", ICCV 2019. Within two LR pixels of the rectangle's border (the radius of the bicubic
    kernel) LR is no exact reduction of HR.

    Args:
        probability: share of the samples that get a rectangle.
    """

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with rectangles of their partners in some samples."""
        return choose(self.decide(batch, seed), paste_rectangles(_partners(batch), batch, seed), batch)
