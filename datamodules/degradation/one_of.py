"""Several degradations, one for each sample: what all-in-one restoration learns from."""

from __future__ import annotations

from torch import Tensor

from datamodules.augmentation.counter_rng import uniform
from datamodules.degradation.base import Degradation, seeds_of


class OneOf(Degradation):
    """Gives each sample one of several degradations, all equally likely; each has a seed of its own (`seeds_of`).

    Args:
        choices: one or more with the same factor; a `Chain` applies several to one sample, an empty one leaves it
            clean.

    Raises:
        ValueError: when there is no choice, or factors differ.
    """

    def __init__(self, choices: list[Degradation]) -> None:
        if not choices:
            raise ValueError("OneOf: choices is empty; expected one degradation or more, such as [GaussianNoise]")
        if len({one.factor for one in choices}) > 1:
            factors = ", ".join(f"{type(one).__name__} {one.factor}" for one in choices)
            raise ValueError(f"OneOf: choices shrink by different factors ({factors}); expected the same for all")
        self.choices = list(choices)
        self.factor = choices[0].factor

    def choice(self, index: Tensor, seed: int) -> Tensor:
        """Which choice each sample gets, int64 (B,): positions in `choices`. `seed` is that of the call."""
        return (uniform(seed, "choice", index)[:, 0] * len(self.choices)).long()

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> Tensor:
        """See `Degradation`."""
        height, width = (-(-side // self.factor) for side in images.shape[-2:])
        degraded = images.new_empty(*images.shape[:2], height, width)
        choice = self.choice(index, seed)
        for position, (one, own_seed) in enumerate(zip(self.choices, seeds_of(self.choices, seed), strict=True)):
            rows = (choice == position).nonzero()[:, 0]
            if len(rows):
                degraded[rows] = one(images[rows], index[rows], own_seed)
        return degraded
