"""What is sampled: so many patches of each class, and for each the real patch that it may start from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from datamodules.augmentation.counter_rng import derive_seed, uniform
from datamodules.selection import Budget
from datamodules.selection.interfaces import Indices
from datamodules.selection.selectors.clustered import proportional_quotas


@dataclass(frozen=True)
class Request:
    """One sample.

    Attributes:
        label: its pseudo-class.
        number: running number within the class: with the seed it decides the sample, whatever the budget is.
        real: position of a real patch of the class among the training patches; consecutive samples have different ones.
    """

    label: int
    number: int
    real: int


def quotas(budget: Budget, class_sizes: Indices, full_pixels: float | None, side: int) -> Indices:
    """How many patches of each class a budget is: IPC of each with members, or a total in proportion to their sizes.

    Args:
        budget: set.
        class_sizes: real patches of each class, int64 (K,).
        full_pixels: HR pixels of all training photographs, for a share of them.
        side: of a patch in pixels.

    Returns:
        int64 (K,).

    Raises:
        ValueError: when the budget is not set, or a share of something unknown.
    """
    if budget.ipc is not None:
        return np.where(class_sizes > 0, budget.ipc, 0)
    if budget.patches is not None:
        return proportional_quotas(class_sizes, budget.patches)
    if budget.percent is None:
        raise ValueError("model.budget is not set; give ipc (patches per class), patches or percent (of all HR pixels)")
    if full_pixels is None:
        raise ValueError("model.budget.percent is of photographs that are not known here; give ipc or patches instead")
    return proportional_quotas(class_sizes, max(1, round(budget.percent / 100 * full_pixels / side**2)))


def requests(wanted: Indices, oversample: float, labels: Indices, seed: int) -> list[Request]:
    """The samples to make, class by class.

    Args:
        wanted: patches to keep of each class, int64 (K,).
        oversample: so many times as many are made.
        labels: pseudo-labels of the training patches, int64 (N,).
        seed: of the samples.
    """
    made = []
    for label, count in enumerate(wanted.tolist()):
        members = np.flatnonzero(labels == label)
        draws = uniform(derive_seed(seed, label), "real patches", torch.arange(len(members)))[:, 0]
        order = members[draws.argsort(stable=True).numpy()]
        many = math.ceil(count * oversample)
        made += [Request(label, number, int(order[number % len(order)])) for number in range(many)]
    return made
