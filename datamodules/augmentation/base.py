"""What an augmentation of pairs is, and how several are applied one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.augmentation.counter_rng import derive_seed, uniform
from datamodules.pair import PairBatch


def checked_fraction(owner: object, name: str, value: float) -> float:
    """`value`, after checking that it lies in [0, 1].

    Raises:
        ValueError: when it does not; the message names the class of `owner` and the argument.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{type(owner).__name__}: {name} is {value}, expected a number from 0 to 1")
    return value


class PairAugmentation(ABC):
    """Changes LR and HR of each sample alike, so that LR stays the bicubic reduction of HR.

    Implementations hold plain values only, work on whole batches on the batch's device, draw every random decision
    from `counter_rng` with the sample's index, leave the input tensors untouched, and keep shape, dtype and [0, 1].

    Args:
        probability: share of the samples that are changed; each sample decides on its own.

    Raises:
        ValueError: when `probability` is outside [0, 1].
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = checked_fraction(self, "probability", probability)

    @abstractmethod
    def __call__(self, batch: PairBatch, seed: int) -> PairBatch:
        """The augmented batch; the same batch and seed always give the same result."""

    def decide(self, batch: PairBatch, seed: int, decision: str = "apply") -> Tensor:
        """Which samples are changed: bool, (B,). Different names of `decision` are independent."""
        return uniform(seed, decision, batch.index)[:, 0] < self.probability


def choose(condition: Tensor, changed: PairBatch, unchanged: PairBatch) -> PairBatch:
    """Samples of `changed` where `condition`, bool (B,), holds, and of `unchanged` elsewhere."""
    rows = condition.view(-1, 1, 1, 1)
    return unchanged.with_images(
        lr=torch.where(rows, changed.lr, unchanged.lr), hr=torch.where(rows, changed.hr, unchanged.hr)
    )


class Compose:
    """Applies augmentations in order, each with a seed of its own.

    The seeds come from position and class name: two flips in one list decide differently, and each augmentation keeps
    its decisions whatever is appended after it.

    Args:
        augmentations: applied first to last; may be empty.
        seed: any integer; two objects with the same augmentations and seed do the same.
    """

    def __init__(self, augmentations: Sequence[PairAugmentation], seed: int) -> None:
        self._steps = [
            (augmentation, derive_seed(seed, f"{position}:{type(augmentation).__name__}"))
            for position, augmentation in enumerate(augmentations)
        ]

    def __call__(self, batch: PairBatch) -> PairBatch:
        """The batch after all augmentations."""
        for augmentation, seed in self._steps:
            batch = augmentation(batch, seed)
        return batch
