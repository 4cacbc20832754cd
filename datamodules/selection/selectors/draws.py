"""Random decisions of selectors: functions of the seed and a candidate's position, the same on every machine."""

from __future__ import annotations

import numpy as np
import torch

from datamodules.augmentation.counter_rng import uniform
from datamodules.selection.interfaces import Floats, Indices


def random_numbers(seed: int, stream: str, count: int) -> Floats:
    """Uniform numbers in [0, 1), (count,).

    Args:
        seed: any integer.
        stream: name of the decision.
        count: how many.
    """
    # Two draws: 24 bits alone would make tens of thousands of ties among a million.
    high, low = uniform(seed, stream, torch.arange(count), count=2).double().unbind(-1)
    return (high + low * 2.0**-24).numpy()


def random_order(seed: int, stream: str, count: int) -> Indices:
    """A permutation of 0 .. count - 1; arguments as for `random_numbers`."""
    return np.argsort(random_numbers(seed, stream, count), kind="stable")
