"""LatentDiffusion: autoencoder, denoiser and noise process as one module, and one denoising step of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from datamodules.augmentation.counter_rng import uniform
from datamodules.randomness import noise
from lightning_modules.diffusion.codec import Codec
from lightning_modules.diffusion.conditioning import blank_condition, null_condition
from lightning_modules.diffusion.process import NoiseProcess

if TYPE_CHECKING:
    from diffusers import DiTTransformer2DModel

EVALUATED = 8
"""Noise levels that held-out patches are denoised at, evenly spread."""


@dataclass(frozen=True)
class Denoised:
    """What one step of training knows of a batch.

    Attributes:
        clean: latents, (B, C, h, w).
        predicted: clean latents by the denoiser, with gradient.
        timesteps: int64 (B,).
        error: mean squared error of the denoiser's output, (B,).
    """

    clean: Tensor
    predicted: Tensor
    timesteps: Tensor
    error: Tensor


class LatentDiffusion(nn.Module):
    """What a diffusion model consists of.

    Args:
        codec: between pixels and latents; frozen by whoever trains the denoiser alone.
        denoiser: a DiTTransformer2DModel; of outputs with learned variance the first half counts.
        process: noise levels and prediction type.

    Raises:
        ValueError: when the denoiser does not fit the codec.
    """

    def __init__(self, codec: Codec, denoiser: DiTTransformer2DModel, process: NoiseProcess) -> None:
        super().__init__()
        channels = denoiser.config.in_channels
        if channels != codec.channels:
            raise ValueError(
                f"the denoiser works on {channels} channels but its autoencoder's latents have {codec.channels}; "
                "give model.autoencoder that the denoiser was trained with"
            )
        self.codec = codec
        self.denoiser = denoiser
        self.process = process

    @property
    def side(self) -> int:
        """Side of the patches in pixels: the positional embedding of a DiT is for one size."""
        return int(self.denoiser.config.sample_size) * self.codec.factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        size = int(self.denoiser.config.sample_size)
        return self.codec.channels, size, size

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """The denoiser's prediction, (B, C, h, w), float32; what it says of variance is left out.

        Args:
            noisy: latents, (B, C, h, w).
            timesteps: int64 (B,).
            condition: pseudo-labels, int64 (B,), or features, float32 (B, D).
        """
        output = self.denoiser(noisy, timestep=timesteps, class_labels=condition).sample
        return output[:, : self.codec.channels].float()

    def denoise(self, clean: Tensor, condition: Tensor, numbers: Tensor, seed: int, dropout: float) -> Denoised:
        """Adds noise to a batch and takes it off again.

        Noise, its level and whether a condition is dropped (for classifier-free guidance, Ho and Salimans, 2022) follow
        from seed and sample, and a dropped one is dropped in all blocks alike.

        Args:
            clean: latents, (B, C, h, w).
            condition: see `forward`.
            numbers: of the samples, int64 (B,).
            seed: of the run.
            dropout: share of the conditions that are dropped, in [0, 1).
        """
        draws = uniform(seed, "noise level", numbers, 2)
        timesteps = (draws[:, 0] * self.process.steps).long()
        if dropout > 0:
            condition = self._dropped(condition, draws[:, 1] < dropout)
        return self._at(clean, condition, timesteps, noise(seed, "noise", numbers, clean.shape[1:]))

    def held_out_error(self, clean: Tensor, numbers: Tensor) -> Tensor:
        """Mean squared error of the prediction on held-out patches, (B,), under the null condition where there is one.

        Each patch is denoised at one of eight noise levels, by its number, with noise that is always the same;
        the first patches of consecutive images have different ones.

        Args:
            clean: latents, (B, C, h, w).
            numbers: of the patches, int64 (B,): eight times the image's number, plus its own in the image.
        """
        level = (numbers + numbers // EVALUATED) % EVALUATED
        timesteps = ((level + 0.5) / EVALUATED * self.process.steps).long()
        condition = blank_condition(self.denoiser, numbers)
        return self._at(clean, condition, timesteps, noise(0, "held out", numbers, clean.shape[1:])).error

    def weighted_error(self, denoised: Denoised, min_snr: float | None) -> Tensor:
        """Mean error of a batch, weighted by min-SNR where its gamma is given."""
        if min_snr is None:
            return denoised.error.mean()
        return (denoised.error * self.process.min_snr_weight(denoised.timesteps, min_snr)).mean()

    def _dropped(self, condition: Tensor, dropped: Tensor) -> Tensor:
        shaped = dropped.reshape(-1, *[1] * (condition.ndim - 1))
        return torch.where(shaped, null_condition(self.denoiser, condition), condition)

    def _at(self, clean: Tensor, condition: Tensor, timesteps: Tensor, drawn: Tensor) -> Denoised:
        noisy = self.process.add_noise(clean, drawn, timesteps)
        output = self(noisy, timesteps, condition)
        error = (output - self.process.target(clean, drawn, timesteps)).square().mean((1, 2, 3))
        return Denoised(clean, self.process.clean(output, noisy, timesteps), timesteps, error)


def held_out_patches(images: Tensor, side: int, most: int = EVALUATED) -> Tensor:
    """Squares on a grid over images, (N, 3, side, side), evenly spread over the places; N is 0 for smaller images."""
    tiles = images.unfold(2, side, side).unfold(3, side, side) if min(images.shape[2:]) >= side else None
    if tiles is None:
        return images.new_empty(0, 3, side, side)
    patches = tiles.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, side, side)
    chosen = torch.linspace(0, len(patches) - 1, min(most, len(patches)), device=images.device).round().long()
    return patches[chosen]
