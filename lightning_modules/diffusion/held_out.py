"""How well a diffusion model does on photographs that were held out."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.pair import PairBatch
from lightning_modules.diffusion.codec import PixelSpace
from lightning_modules.diffusion.latent_diffusion import EVALUATED, LatentDiffusion, held_out_patches


def held_out_error(diffusion: LatentDiffusion, batch: PairBatch) -> Tensor | None:
    """Mean denoising error of patches of one image, a scalar; None for an image smaller than a patch."""
    patches = held_out_patches(batch.hr, diffusion.side)
    if not len(patches):
        return None
    numbers = int(batch.index[0]) * EVALUATED + torch.arange(len(patches), device=patches.device)
    return diffusion.held_out_error(diffusion.codec.encode(patches), numbers).mean()


def reconstruction_psnr(diffusion: LatentDiffusion, batch: PairBatch) -> Tensor | None:
    """PSNR of what the autoencoder brings back of patches of one image, in dB; None where there is nothing to bring."""
    patches = held_out_patches(batch.hr, diffusion.side)
    if not len(patches) or isinstance(diffusion.codec, PixelSpace):
        return None
    decoded = diffusion.codec.decode(diffusion.codec.encode(patches)).clamp(0, 1)
    return -10 * (decoded - patches).square().mean((1, 2, 3)).clamp_min(1e-10).log10().mean()
