"""Distribution matching: gradients that bring features of decoded patches near those of real ones, class by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.augmentation.counter_rng import derive_seed, uniform
from datamodules.crops import CropDataset
from datamodules.selection.interfaces import Indices
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
    """The matching loss of all classes and its gradient.

    Attributes:
        generator: decodes.
        real: real patches.
        terms: weights of the loss.
        siamese: augmentation of both.
        exchange: adds up a tensor over the processes.
    """

    generator: Generator
    real: RealPatches
    terms: MatchingTerms
    siamese: Siamese
    exchange: Callable[[Tensor], Tensor]

    def __call__(
        self, latents: Tensor, labels: Tensor, chunks: Sequence[Tensor], network: nn.Module, step: int
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Gradient of the sum of the classes' losses, and these.

        Args:
            latents: float32 (N, *latent_shape).
            labels: class of each, int64 (N,).
            chunks: positions that this process computes, of one class each.
            network: gives features (B, D) of patches.
            step: of the run, which decides real patches and augmentation.

        Returns:
            Gradient as the latents, zero outside of the chunks; loss of each class, without gradient.
        """
        with torch.no_grad():
            expected = {label: self._real_features(network, label, step, latents.device) for label in _classes(labels)}
        losses: dict[int, Tensor] = {}

        def embed(some: Tensor, positions: Tensor) -> Tensor:
            patches = self.siamese(self.generator.decode(some), self.real.seed, step, int(labels[positions[0]]))
            features: Tensor = network(patches)
            return features

        def loss(features: Tensor) -> Tensor:
            for label, real in expected.items():
                terms = self.terms.of_features(real, features[labels == label], step, self.real.seed)
                losses[label] = sum(terms.values(), real.new_zeros(()))
            return torch.stack(list(losses.values())).sum()

        width = next(iter(expected.values())).shape[1]
        gradient = chunked_gradient(latents, chunks, width, embed, loss, self.exchange)
        return gradient, {label: value.detach() for label, value in losses.items()}

    def _real_features(self, network: nn.Module, label: int, step: int, device: torch.device) -> Tensor:
        patches = self.siamese(self.real.draw(label, step, device), self.real.seed, step, label)
        features: Tensor = network(patches)
        return features


def _classes(labels: Tensor) -> list[int]:
    return labels.unique().tolist()
