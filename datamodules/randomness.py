"""Gaussian noise that is a function of (seed, stream, sample): the same whatever batch or process a sample is in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.augmentation.counter_rng import derive_seed


def generators(seed: int, stream: str, numbers: Sequence[int]) -> list[torch.Generator]:
    """A generator of its own for each sample, on the CPU, which every machine and device can be fed from.

    Args:
        seed: of the run.
        stream: name of what is drawn.
        numbers: running numbers of the samples.
    """
    base = derive_seed(seed, stream)
    return [torch.Generator().manual_seed(derive_seed(base, number)) for number in numbers]


def noise(seed: int, stream: str, numbers: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32 (B, *shape), on the device of `numbers` (int64, (B,))."""
    drawn = [torch.randn(tuple(shape), generator=one) for one in generators(seed, stream, numbers.tolist())]
    return torch.stack(drawn).to(numbers.device)
