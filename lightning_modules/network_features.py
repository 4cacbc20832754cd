"""Feature networks that methods match by, as features of patches that the cache can keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from datamodules.selection.interfaces import Features, Part
from lightning_modules.diffusion.sample_cache import digest_tensors
from lightning_modules.feature_networks import FeatureNetwork, MatchingFeatures

_TINY = 1e-12  # variance below which a channel counts as constant: the root has no derivative at 0


class NetworkFeatures(Features):
    """Mean and standard deviation of each channel of a feature network's maps; its vectors, where it makes no maps.

    Args:
        network: RandomConvNet, drawn once, or SRFeatures, of a trained SR network.
        seed: of random weights.
    """

    def __init__(self, network: MatchingFeatures, seed: int = 0) -> None:
        self.network = network
        self.seed = seed
        self._loaded: FeatureNetwork | None = None

    def identity(self) -> dict[str, Any]:
        """Class and settings of both, and the digest of the weights."""
        settings = {key: value for key, value in vars(self.network).items() if not key.startswith("_")}
        plain = {key: value.identity() if isinstance(value, Part) else value for key, value in settings.items()}
        # a network that is in use must not be moved to another device
        network = self._loaded or self.network.network(0, self.seed, torch.device("cpu"))
        of_network = {"class": type(self.network).__name__, **plain, "sha256": digest_tensors(network.state_dict())}
        return {"class": self.code(), "seed": self.seed, "network": of_network}

    def load(self, device: torch.device) -> None:
        """Draws or reads the weights.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it holds no network that gives features.
        """
        self._loaded = self.network.network(0, self.seed, device)

    def __call__(self, hr: Tensor) -> Tensor:
        """Vectors of a batch of patches.

        Args:
            hr: float32 RGB in [0, 1], (B, 3, side, side), on the device of `load`.

        Returns:
            float32, (B, D); differentiable in the patches.

        Raises:
            ValueError: when the network cannot take patches of this side.
        """
        assert self._loaded is not None, "load comes first"
        maps = self._loaded.embed(hr).float()
        if maps.ndim == 2:
            return maps
        maps = maps.flatten(2)
        deviation = maps.var(2, correction=0).clamp(min=_TINY).sqrt()
        return torch.cat([maps.mean(2), deviation], dim=1)
