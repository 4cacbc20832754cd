"""A trained SR network as generator: latents are images of LR size, which it upscales (GSDD's case)."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from datamodules.bicubic import downscale
from lightning_modules.gan.generator import Generator
from lightning_modules.networks.trained import load_trained


class SRGenerator(Generator):
    """Any network that `load_trained` reads: GAN-trained ones such as Real-ESRGAN, or a run of SuperResolution.

    Args:
        path: of the weights.
        side: of a patch, HR pixels.
        dtype: of the frozen weights and of what is computed with them.

    Raises:
        FileNotFoundError: when there are no weights.
        ValueError: when they cannot be read or used, or their scale does not divide the side.
    """

    def __init__(self, path: str, side: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        trained = load_trained(path)
        self.scale = trained.scale
        if self.scale == 1 or side % self.scale:
            raise ValueError(
                f"model.generator {path} upscales by {self.scale}, which does not fit patches of {side} pixels; "
                + ("give a network that upscales" if self.scale == 1 else f"set data.patch_size {self._near(side)}")
            )
        self.side = side
        self.latent_shape = self.noise_shape = (3, side // self.scale, side // self.scale)
        self.fingerprint = hashlib.sha256(json.dumps(["sr", trained.sha256, side]).encode()).hexdigest()
        self.network = trained.network.to(dtype).to(memory_format=torch.channels_last)

    def sample(self, noise: Tensor) -> Tensor:
        """Noise around grey: an SR network has no distribution of its own to draw from."""
        return 0.5 + 0.25 * noise

    def approximate(self, hr: Tensor) -> Tensor:
        """The exact bicubic reduction, which such networks learn to invert."""
        return downscale(hr, self.scale)

    def generate(self, latents: Tensor) -> Tensor:
        """Upscales."""
        dtype = self.weights_dtype()
        with torch.autocast(latents.device.type, enabled=False):  # the dtype of the weights decides
            patches: Tensor = self.network(latents.to(dtype))
        return patches.float()

    def _near(self, side: int) -> int:
        return max(1, side // self.scale) * self.scale
