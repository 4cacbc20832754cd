"""What a degradation of clean images is, and how several are applied one after the other."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from datamodules.augmentation.counter_rng import derive_seed


class Degradation(ABC):
    """Makes of clean images what a lens, a sensor, the weather or a codec would have left of them.

    Implementations hold plain values only, work on whole batches on the images' device, draw every random decision from
    the image's index (`counter_rng`), so that it is the same in every batch, worker and process, and leave their
    input untouched.

    Attributes:
        factor: by which sides shrink.
    """

    factor: int = 1

    @abstractmethod
    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """The degraded images.

        Args:
            images: float32 RGB in [0, 1], (B, 3, H, W); sides are multiples of `factor`.
            index: int64 (B,), what random decisions about each image are derived from.
            seed: of these decisions.

        Returns:
            float32 in [0, 1], (B, 3, H / factor, W / factor).
        """


def seeds_of(degradations: Sequence[Degradation], seed: int) -> list[int]:
    """The seed that each of several degradations gets; it follows from position and class name alone."""
    return [derive_seed(seed, f"{position}:{type(one).__name__}") for position, one in enumerate(degradations)]


class Chain(Degradation):
    """Degradations in order, each with a seed of its own (`seeds_of`).

    Args:
        degradations: applied first to last.
    """

    def __init__(self, degradations: Sequence[Degradation]) -> None:
        self.degradations = list(degradations)
        self.factor = math.prod(one.factor for one in self.degradations)

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        for one, own_seed in zip(self.degradations, seeds_of(self.degradations, seed), strict=True):
            images = one(images, index, own_seed)
        return images
