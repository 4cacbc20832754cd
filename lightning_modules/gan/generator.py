"""What a generator is: a frozen network that turns latents into patches."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """Turns latents into RGB patches; its weights are frozen, gradients reach the latents.

    Latents are float32 on the module's device, whatever dtype the weights have; patches are float32.

    Attributes:
        latent_shape: of one patch's latent.
        noise_shape: of the standard normal numbers that `sample` makes one latent of.
        side: of a patch, HR pixels.
        fingerprint: SHA-256 of the weights and of what decides how they are used but their dtype; latents are stored
            with it.
        source: where it was found: path or place on a hub; see `GeneratorSpec`.
    """

    latent_shape: tuple[int, ...]
    noise_shape: tuple[int, ...]
    side: int
    fingerprint: str
    source: str = ""

    @abstractmethod
    def sample(self, noise: Tensor) -> Tensor:
        """Random latents, float32 (B, *latent_shape), from standard normal numbers, float32 (B, *noise_shape)."""

    @abstractmethod
    def approximate(self, hr: Tensor) -> Tensor:
        """Latents whose patches come near real ones, without any optimisation: what inversion starts from.

        Args:
            hr: float32 RGB in [0, 1], (B, 3, side, side).

        Returns:
            float32 (B, *latent_shape).
        """

    @abstractmethod
    def generate(self, latents: Tensor) -> Tensor:
        """Patches as the network makes them, float32 (B, 3, side, side), about in [0, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Patches in [0, 1]: clipped, but with the gradient of what lies outside, so that it can come back.

        Args:
            latents: float32 (B, *latent_shape).

        Returns:
            float32 (B, 3, side, side).
        """
        patches = self.generate(latents)
        return patches + (patches.clamp(0, 1) - patches).detach()

    def weights_dtype(self) -> torch.dtype:
        """Of the frozen weights."""
        return next(self.parameters()).dtype
