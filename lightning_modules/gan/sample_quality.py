"""How far samples lie from held-out patches, in the vectors that the datamodule gives patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from datamodules.selection.computed import exact_inference
from datamodules.selection.distances import kernel_distance, standardiser
from datamodules.selection.interfaces import Features

AT_ONCE = 64
"""Patches that are embedded at a time."""


class HeldOutFeatures:
    """Vectors of the held-out patches of one validation, image by image.

    Args:
        features: what makes vectors.
        training: patches that give each number of a vector its unit, float in [0, 1], (R, 3, side, side), R at least 1,
            on the device to compute on. There are more of them than of held-out ones, of more photographs.

    Raises:
        FileNotFoundError: when weights that the features need are not there.
        ValueError: when they cannot be read.
    """

    def __init__(self, features: Features, training: Tensor) -> None:
        features.load(training.device)
        self._features = features
        self._standardise = standardiser(self._embed(training))
        self._vectors: dict[int, Tensor] = {}

    def add(self, image: int, patches: Tensor) -> None:
        """Takes the patches of an image, float in [0, 1], (N, 3, side, side); N may be 0."""
        if len(patches):
            self._vectors[image] = self._embed(patches)

    def distance(self, samples: Tensor) -> float | None:
        """Kernel distance of samples, float in [0, 1], (M, 3, side, side), from the patches of all processes.

        KID (Binkowski et al., ICLR 2018) with other features than Inception's, each brought to mean 0 and standard
        deviation 1 over the training patches; about 0 for patches of the same photographs, see `kernel_distance`.

        Returns:
            None where there are fewer than two patches or samples.
        """
        vectors = of_all_processes(self._vectors)
        if not vectors:
            return None
        real = torch.cat([vectors[image] for image in sorted(vectors)])
        return kernel_distance(self._standardise(self._embed(samples)), self._standardise(real))

    def _embed(self, patches: Tensor) -> Tensor:
        with exact_inference():
            return torch.cat([self._features(part.float()).float().cpu() for part in patches.split(AT_ONCE)])


def of_all_processes(vectors: dict[int, Tensor]) -> dict[int, Tensor]:
    """What all processes hold of each image, once, although Lightning gives some images to two of them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return vectors
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, vectors)
    return {image: part for share in reversed(shares) for image, part in share.items()}
