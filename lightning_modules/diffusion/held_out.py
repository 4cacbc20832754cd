"""How well a diffusion model does on photographs that were held out."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.diffusion.codec import PixelSpace
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion, held_out_patches


def held_out_metrics(diffusion: LatentDiffusion, images: Tensor) -> dict[str, Tensor]:
    """Denoising error of patches of some images and, where there is an autoencoder, the PSNR of what it brings back.

    Args:
        diffusion: to measure.
        images: RGB in [0, 1], (B, 3, H, W).

    Returns:
        Scalars `denoising_loss` and `reconstruction_psnr` (dB); none for images smaller than a patch.
    """
    patches = held_out_patches(images, diffusion.side)
    if not len(patches):
        return {}
    latents = diffusion.codec.encode(patches)
    numbers = torch.arange(len(patches), device=images.device)
    metrics = {"denoising_loss": diffusion.held_out_error(latents, numbers).mean()}
    if not isinstance(diffusion.codec, PixelSpace):
        error = (diffusion.codec.decode(latents).clamp(0, 1) - patches).square().mean((1, 2, 3))
        metrics["reconstruction_psnr"] = -10 * error.clamp_min(1e-10).log10().mean()
    return metrics
