"""Distribution matching: gradients that bring features of decoded patches near those of real ones, class by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datamodules.augmentation.counter_rng import derive_seed, uniform
from datamodules.crops import CropDataset
from datamodules.selection.interfaces import Indices
from lightning_modules.feature_networks import FeatureNetwork
from lightning_modules.gan.augmentation import Siamese
from lightning_modules.gan.chunks import chunked_gradient
from lightning_modules.gan.generator import Generator
from lightning_modules.losses.distribution_matching import MatchingTerms


@dataclass(frozen=True)
class RealPatches:
    """Where real patches come from.

    Attributes:
        patches: real ones.
        labels: class of each, int64.
        batch: patches of a class and step.
        seed: of the draws.
    """

    patches: CropDataset
    labels: Indices
    batch: int
    seed: int

    def draw(self, label: int, step: int, device: torch.device) -> Tensor:
        """Different patches of a class, float32 in [0, 1], (B, 3, side, side); all of it where there are no more."""
        members = np.flatnonzero(self.labels == label)
        luck = uniform(derive_seed(derive_seed(self.seed, label), step), "real batch", torch.arange(len(members)))[:, 0]
        drawn = members[luck.argsort(stable=True)[: self.batch].numpy()]
        return self.patches.whole(drawn.tolist()).to(device).to_float().hr


@dataclass(frozen=True)
class Matching:
    """The matching loss of a class, and its gradient.

    Attributes:
        generator: decodes.
        real: real patches.
        terms: weights of the loss.
        siamese: augmentation of both.
        chunk: patches that go through the networks at a time.
    """

    generator: Generator
    real: RealPatches
    terms: MatchingTerms
    siamese: Siamese
    chunk: int

    def __call__(self, latents: Tensor, label: int, network: FeatureNetwork, step: int) -> tuple[Tensor, Tensor]:
        """Gradient and loss of a class's latents.

        Args:
            latents: float32 (N, *latent_shape), N at least 1.
            label: their class.
            network: gives features (B, D) of patches.
            step: of the run, which decides real patches and augmentation.

        Returns:
            Gradient as the latents; the loss, without gradient.
        """

        def embed(some: Tensor) -> Tensor:
            features: Tensor = network(self.siamese(self.generator.decode(some), self.real.seed, step, label))
            return features

        def loss(features: Tensor) -> Tensor:
            terms = self.terms.of_features(real, features, step, self.real.seed, network.channels)
            return torch.stack(list(terms.values())).sum()

        real = self._real_features(label, network, step, latents.device)
        return chunked_gradient(latents, self.chunk, embed, loss)

    @torch.no_grad()
    def _real_features(self, label: int, network: FeatureNetwork, step: int, device: torch.device) -> Tensor:
        drawn = self.real.draw(label, step, device).split(self.chunk)
        return torch.cat([network(self.siamese(patches, self.real.seed, step, label)) for patches in drawn])
