"""PatchSampler: from requests to pixels, with what was sampled before read from the cache."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.crops import CropDataset
from datamodules.distilled import Pixels
from datamodules.pair import to_uint8
from datamodules.randomness import generators
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion
from lightning_modules.diffusion.sample_cache import SampleCache
from lightning_modules.diffusion.sampling import Sampler, sample
from lightning_modules.requests import Request


class PatchSampler:
    """Samples patches; each has noise of its own, so that batch size and number of processes do not matter.

    Args:
        diffusion: with trained weights.
        sampler: how to.
        real: the training patches, with labels, and with features where these are the condition.
        seed: of the samples.
        cache: where samples are looked for and kept.

    Attributes:
        made: how many were sampled here, and how many read from the cache.
        seconds_before: that sampling those from the cache took.
    """

    def __init__(
        self, diffusion: LatentDiffusion, sampler: Sampler, real: CropDataset, seed: int, cache: SampleCache
    ) -> None:
        self._diffusion = diffusion
        self._sampler = sampler
        self._real = real
        self._seed = seed
        self._cache = cache
        self.made = {"sampled": 0, "from_cache": 0}
        self.seconds_before = 0.0

    def __call__(self, requests: Sequence[Request], device: torch.device) -> list[Pixels]:
        """Pixels of each request, uint8 (side, side, 3)."""
        found = {request: self._cache.get(request) for request in requests}
        missing = [request for request, before in found.items() if before is None]
        pixels = {request: before[0] for request, before in found.items() if before is not None}
        self.seconds_before += sum(before[1] for before in found.values() if before is not None)
        self.made["sampled"] += len(missing)
        self.made["from_cache"] += len(pixels)
        if missing:
            start = time.perf_counter()
            pixels |= dict(zip(missing, self._sampled(missing, device), strict=True))
            seconds = (time.perf_counter() - start) / len(missing)
            for request in missing:
                self._cache.put(request, pixels[request], seconds)
        return [pixels[request] for request in requests]

    def _sampled(self, requests: Sequence[Request], device: torch.device) -> list[Pixels]:
        noises = [
            noise
            for request in requests
            for noise in generators(derive_seed(self._seed, request.label), "sample", [request.number])
        ]
        with torch.inference_mode():
            condition = conditions(self._real, requests, device)
            start = starts(self._real, requests, self._diffusion, self._sampler, device)
            latents = sample(self._diffusion, self._sampler, condition, noises, start)
            decoded = self._diffusion.codec.decode(latents).float()
        if not decoded.isfinite().all():
            raise ValueError("samples are not finite; use trainer.precision 32-true or bf16-mixed, or other weights")
        return list(to_uint8(decoded).permute(0, 2, 3, 1).cpu().numpy())


def conditions(real: CropDataset, requests: Sequence[Request], device: torch.device) -> Tensor:
    """What each sample is conditioned on: its class, or the features of its real patch where these are there."""
    if real.features is not None:
        return torch.from_numpy(real.features[[request.real for request in requests]]).to(device)
    return torch.tensor([request.label for request in requests], device=device)


def starts(
    real: CropDataset, requests: Sequence[Request], diffusion: LatentDiffusion, sampler: Sampler, device: torch.device
) -> Tensor | None:
    """Clean latents of the real patches that samples start from; None where they start from noise alone."""
    if sampler.strength == 1:
        return None
    with torch.inference_mode():
        patches = real.whole([request.real for request in requests]).to(device).to_float()
        latents: Tensor = diffusion.codec.encode(patches.hr)
    return latents


def identity(sampler: Sampler, seed: int, weights: str, real: str | None, precision: str) -> dict[str, Any]:
    """Everything that decides samples: settings, seed, digest of the weights, and of the real patches where they do."""
    own = {"format": 1, "seed": seed, "weights": weights, "real": real, "precision": precision}
    return {**own, **dataclasses.asdict(sampler)}
