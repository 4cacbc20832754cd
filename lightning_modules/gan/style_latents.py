"""The compact style-based generator: latents are styles, one for the whole patch (w) or one for each layer (w+)."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.randomness import noise
from lightning_modules.gan.generator import Generator
from lightning_modules.gan.style_file import load_style_generator, style_fingerprint

GUESSES = 256
"""Random patches among which the nearest to a real one is looked for."""

COMPARED = 16
"""Side in pixels at which they are compared: colours and coarse shapes."""


class StyleLatents(Generator):
    """A generator of `GANPrior` in its style space (w and w+ of Abdal et al., ICCV 2019).

    Args:
        folder: of the generator, of the run that trained it, or of the run's experiment.
        side: of a patch, HR pixels; the generator's.
        space: `w` has one style, `w_plus` one for each layer.
        dtype: of the frozen weights and of what is computed with them.

    Raises:
        FileNotFoundError: when there is no generator.
        ValueError: when it cannot be read, or makes patches of another side.
    """

    def __init__(
        self, folder: str, side: int, space: Literal["w", "w_plus"] = "w_plus", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        network = load_style_generator(folder)
        if network.side != side:
            raise ValueError(
                f"model.generator {folder} makes patches of {network.side} pixels but data.patch_size is {side}; "
                f"set data.patch_size (and candidate_size) to {network.side}, or give another generator"
            )
        self.side = side
        self.noise_shape = (network.z_dim,)
        self.latent_shape = (network.w_dim,) if space == "w" else (network.layers, network.w_dim)
        content = ["style", style_fingerprint(folder), space]
        self.fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        self.network = network.eval().requires_grad_(False).to(dtype=dtype)
        self._guesses: tuple[Tensor, Tensor] | None = None

    def sample(self, noise: Tensor) -> Tensor:
        """Styles that the mapping network makes."""
        with torch.no_grad():
            styles: Tensor = self.network.mapping(noise.to(self.weights_dtype())).float()
        # contiguous: in a view of one style, those of the layers could not become different
        return styles if styles.shape[1:] == self.latent_shape else self.network.spread(styles).contiguous()

    def approximate(self, hr: Tensor) -> Tensor:
        """Of 256 random patches the one whose colours and coarse shapes are nearest."""
        latents, coarse = self._candidates(hr.device)
        return latents[torch.cdist(_coarse(hr), coarse).argmin(1)]

    def generate(self, latents: Tensor) -> Tensor:
        """Synthesises; the network works on [-1, 1]."""
        styles = self.network.spread(latents) if latents.ndim == 2 else latents
        with torch.autocast(latents.device.type, enabled=False):  # the dtype of the weights decides
            patches: Tensor = self.network.synthesis(styles.to(self.weights_dtype()))
        return (patches.float() + 1) / 2

    def _candidates(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self._guesses is None:
            numbers = torch.arange(GUESSES, device=device)
            latents = self.sample(noise(0, "first guesses", numbers, self.noise_shape))
            with torch.no_grad():
                self._guesses = latents, torch.cat([_coarse(self.decode(some)) for some in latents.split(32)])
        return self._guesses


def _coarse(patches: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(patches, min(COMPARED, patches.shape[-1])).flatten(1)
