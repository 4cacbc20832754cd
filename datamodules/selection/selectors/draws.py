"""Random decisions of selectors: functions of the seed and a candidate's number, the same on every machine."""

from __future__ import annotations

import numpy as np
import torch

from datamodules.augmentation.counter_rng import uniform
from datamodules.selection.interfaces import Floats, Indices, Pool


def random_numbers(seed: int, stream: str, numbers: Indices) -> Floats:
    """Uniform numbers in [0, 1), (N,).

    Args:
        seed: any integer.
        stream: name of the decision.
        numbers: of what is decided about, int64 (N,).
    """
    # Two draws: 24 bits alone would make tens of thousands of ties among a million.
    high, low = uniform(seed, stream, torch.from_numpy(numbers), count=2).double().unbind(-1)
    return (high + low * 2.0**-24).numpy()


def random_order(seed: int, stream: str, pool: Pool) -> Indices:
    """Positions in the pool in random order, int64 (N,); seed and stream as for `random_numbers`."""
    numbers = np.arange(len(pool), dtype=np.int64) if pool.numbers is None else pool.numbers
    return np.argsort(random_numbers(seed, stream, numbers), kind="stable")
