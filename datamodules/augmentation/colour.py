"""Changes of colour: one affine map per sample, the same for LR and HR.

LR is linear in HR and its weights sum to one, so D(a HR + b) = a D(HR) + b and the pair stays a pair. Clipping is not
linear and would break it (adding 0.2 to BSDS patches and clipping puts LR off by 2.5 of 255 levels, rms): the maps are
therefore drawn so that neither image of the pair leaves [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.augmentation.base import PairAugmentation, checked_fraction, choose
from datamodules.augmentation.counter_rng import uniform
from datamodules.pair import PairBatch

_SMALLEST_SPAN = 1e-6  # keeps the room of a uniformly coloured sample finite


def _extremes(batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each sample over LR and HR, two (B,): bicubic LR can exceed its HR's range."""
    low = torch.minimum(batch.lr.flatten(1).amin(1), batch.hr.flatten(1).amin(1))
    high = torch.maximum(batch.lr.flatten(1).amax(1), batch.hr.flatten(1).amax(1))
    return low.float(), high.float()


def _affine(batch: PairBatch, gain: Tensor, offset: Tensor) -> PairBatch:
    """`gain * image + offset` with (B,) float32 factors; the clamp removes no more than rounding errors."""

    def mapped(images: Tensor) -> Tensor:
        values = images * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)
        return values.clamp(0, 1).to(images.dtype)

    return batch.with_images(lr=mapped(batch.lr), hr=mapped(batch.hr))


class RGBPermutation(PairAugmentation):
    """Gives the colour channels one of their five other orders, all equally likely.

    From the study of J. Yoo et al., "Rethinking Data Augmentation for Image Super-resolution", CVPR 2020.

    Args:
        probability: share of the samples whose channels change places; 5/6 makes all six orders equally likely.
    """

    _ORDERS = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with some samples' channels in another order."""
        number = (uniform(seed, "order", batch.index)[:, 0] * len(self._ORDERS)).long()
        order = torch.tensor(self._ORDERS, device=number.device)[number]
        rows = torch.arange(len(batch), device=number.device).unsqueeze(1)
        permuted = batch.with_images(lr=batch.lr[rows, order], hr=batch.hr[rows, order])
        return choose(self.decide(batch, seed), permuted, batch)


class Brightness(PairAugmentation):
    """Adds a constant, uniform over [-amount, amount] as far as the sample has room up to 1 and down to 0.

    A sample that spans all of [0, 1] has no room and stays as it is: put `Contrast`, which makes some, before it.

    Args:
        amount: largest constant, in [0, 1] where 1 is white.
        probability: share of the samples that are changed.

    Raises:
        ValueError: when an argument is outside [0, 1].
    """

    def __init__(self, amount: float = 0.2, probability: float = 0.5) -> None:
        super().__init__(probability)
        self.amount = checked_fraction(self, "amount", amount)

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with some samples brighter or darker."""
        low, high = _extremes(batch)
        darkest, brightest = -low.clamp(max=self.amount), (1 - high).clamp(max=self.amount)
        offset = torch.lerp(darkest, brightest, uniform(seed, "amount", batch.index)[:, 0])
        return choose(self.decide(batch, seed), _affine(batch, torch.ones_like(offset), offset), batch)


class Contrast(PairAugmentation):
    """Multiplies the distance from the sample's mean, uniform over [1 - amount, 1 + amount] as far as there is room.

    The upper end is lowered to the gain at which the sample's darkest or brightest value reaches 0 or 1.

    Args:
        amount: largest change of the gain, in [0, 1].
        probability: share of the samples that are changed.

    Raises:
        ValueError: when an argument is outside [0, 1].
    """

    def __init__(self, amount: float = 0.4, probability: float = 0.5) -> None:
        super().__init__(probability)
        self.amount = checked_fraction(self, "amount", amount)

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with some samples of more or less contrast."""
        low, high = _extremes(batch)
        mean = batch.hr.float().mean(dim=(1, 2, 3))
        room = torch.minimum(
            mean / (mean - low).clamp(min=_SMALLEST_SPAN), (1 - mean) / (high - mean).clamp(min=_SMALLEST_SPAN)
        )
        highest = room.clamp(1, 1 + self.amount)
        gain = torch.lerp(torch.full_like(highest, 1 - self.amount), highest, uniform(seed, "gain", batch.index)[:, 0])
        return choose(self.decide(batch, seed), _affine(batch, gain, (1 - gain) * mean), batch)


class Inversion(PairAugmentation):
    """Turns samples into their negatives, 1 - image.

    Args:
        probability: share of the samples that are inverted.
    """

    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The batch with some samples inverted."""
        return choose(self.decide(batch, seed), batch.with_images(lr=1 - batch.lr, hr=1 - batch.hr), batch)
