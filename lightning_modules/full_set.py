"""What a training set as a whole is like, by features of all its patches; and how far other patches are from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.augmentation.counter_rng import uniform
from datamodules.real import RealImages
from datamodules.selected import SelectedPatches
from datamodules.selection.candidates import Candidates
from datamodules.selection.computed import cached_arrays, embed, key
from datamodules.selection.interfaces import Features, Floats, Vectors
from lightning_modules.losses.distribution_distance import DistributionDistance, FullSet

BLOCK = 1 << 23
"""Numbers that are read of the vectors at a time."""


@dataclass(frozen=True)
class FullFeatures:
    """Features of a full set.

    Attributes:
        rows: float32 (M, D), memory-mapped.
        mean: float64 (D,).
        covariance: float64 (D, D), divided by M - 1.
    """

    rows: Vectors
    mean: Floats
    covariance: Floats

    @property
    def spread(self) -> float:
        """Root mean squared distance of a patch from the mean; 1 where all patches are the same."""
        return math.sqrt(np.trace(self.covariance)) or 1.0

    def relative(self, features: Tensor) -> Tensor:
        """Features less the full set's mean, in units of its spread: float64 (N, D), whatever network they are of."""
        mean = torch.from_numpy(self.mean).to(features.device)
        return (features.double() - mean) / self.spread

    def full_set(self, rows: int, seed: int, device: torch.device) -> FullSet:
        """The full set in these units, with a random sample of at most so many rows."""
        covariance = torch.from_numpy(self.covariance / self.spread**2).to(device)
        sample = self.sample(rows, seed, "rows of the full set", device)
        return FullSet(covariance.new_zeros(len(covariance)), covariance, self.relative(sample))

    def sample(self, rows: int, seed: int, purpose: str, device: torch.device) -> Tensor:
        """Features of at most so many patches, drawn at random: float32 (N, D)."""
        luck = uniform(seed, purpose, torch.arange(len(self.rows)))[:, 0]
        drawn = luck.argsort(stable=True)[:rows].sort().values.numpy()
        return torch.from_numpy(np.ascontiguousarray(self.rows[drawn])).to(device)


class Yardstick:
    """Tells how far some patches are from all patches of the training photographs.

    Args:
        full: features of all of them.
        features: that these are.
        distance: of distributions.
        seed: of the sample that distances are measured to, where they need one, and of patches drawn at random.
        device: to compute on.
    """

    def __init__(
        self, full: FullFeatures, features: Features, distance: DistributionDistance, seed: int, device: torch.device
    ) -> None:
        self._full = full
        self._features = features
        self._distance = distance
        self._seed, self._device = seed, device
        self._measure = distance.against(full.full_set(distance.rows, seed, device))
        features.load(device)  # the cache may have spared it

    def embed(self, images: Tensor) -> Tensor:
        """Features of images, float32 RGB in [0, 1], (B, 3, side, side): float32 (B, D), computed without autocast."""
        with torch.autocast(images.device.type, enabled=False):
            return self._features(images)

    def __call__(self, features: Tensor, step: int) -> Tensor:
        """Distance to the full set.

        Args:
            features: of some patches, (N, D).
            step: what is drawn at random follows from it.

        Raises:
            ValueError: when a feature is not finite.
        """
        if not features.isfinite().all():
            raise ValueError(
                f"{type(self._features).__name__}: features of edited patches are not finite; lower the learning rate, "
                "or use other model.features"
            )
        return self._measure(self._full.relative(features), step)

    def of_random(self, count: int) -> float:
        """Distance of as many patches drawn from the full set at random: that of any sample, not of a choice."""
        return self(self._full.sample(count, self._seed, "patches at random", self._device), -1).item()

    def record(self) -> dict[str, Any]:
        """What is measured, as plain values."""
        distance = {"class": type(self._distance).__name__, **vars(self._distance)}
        return {"distance": distance, "features": self._features.identity(), "full_patches": len(self._full.rows)}


def full_features(data: RealImages, side: int, features: Features, device: torch.device) -> FullFeatures:
    """Features of all patches of the training photographs, and their moments; from the cache where they are there.

    Args:
        data: after `setup("fit")`. The grid is that of `SelectedPatches`' candidates, where these are of that side;
            else patches lie side by side.
        side: of the patches in HR pixels.
        features: of patches.
        device: to compute on.

    Raises:
        OSError: when the cache cannot be written.
        ValueError: when no photograph is as large as a patch, features are not finite, or the cache is damaged.
    """
    candidates = _candidates(data, side)
    everything = np.arange(len(candidates), dtype=np.int64)
    rows = embed(features, candidates, everything, data.cache, device)
    path = _moments_path(data.cache, key(features, candidates, everything))
    found = cached_arrays(path, lambda: dict(zip(("mean", "covariance"), moments(rows), strict=True)))
    return FullFeatures(rows, found["mean"], found["covariance"])


def moments(rows: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Mean and covariance of rows that may be memory-mapped, in two passes and double precision.

    Args:
        rows: (M, D), M at least 1.

    Returns:
        float64 (D,), and (D, D), divided by M - 1.
    """
    count, width = rows.shape
    mean = sum(block.sum(0) for block in _blocks(rows)) / count
    products = np.zeros((width, width))
    for block in _blocks(rows):
        centred = block - mean
        products += centred.T @ centred
    return mean, products / max(1, count - 1)


def _blocks(rows: NDArray[np.floating]) -> Iterator[Floats]:
    step = max(1, BLOCK // rows.shape[1])
    return (rows[at : at + step].astype(np.float64) for at in range(0, len(rows), step))


def _moments_path(cache: Path, name: str) -> Path:
    return cache / "features" / f"{name}.moments.npz"


def _candidates(data: RealImages, side: int) -> Candidates:
    if isinstance(data, SelectedPatches) and data.candidate_size == side:
        return data.selection.candidates
    return Candidates(data.store, [image for image, _ in data.training_images], side, side)
