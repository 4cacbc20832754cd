"""Sampling: from noise, or from a noisy real patch, to clean latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.randomness import generators
from lightning_modules.diffusion.conditioning import null_condition
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion

DETERMINISTIC = {
    "algorithm_type": "dpmsolver++",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
}
"""Of DPM-Solver++, whatever the model's own scheduler is: steps at the noise levels that real patches start at."""


@dataclass(frozen=True)
class Sampler:
    """How patches are sampled.

    Attributes:
        method: `ddim` (Song et al., 2021), `dpmsolver++` (Lu et al., 2022) or `ddpm` (Ho et al., 2020).
        steps: denoising steps.
        guidance: strength of classifier-free guidance (Ho and Salimans, 2022); 1 is without, and twice as fast.
        strength: 1 starts from noise alone. Below 1, a real training patch with that share of the noise levels is the
            start (SDEdit, Meng et al., ICLR 2022), and with less strength the sample stays closer to it.

    Raises:
        ValueError: when a number is out of range.
    """

    method: Literal["ddim", "dpmsolver++", "ddpm"] = "ddim"
    steps: int = 50
    guidance: float = 4.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 1 <= self.guidance < math.inf:
            raise ValueError(
                f"model.sampler has steps {self.steps} and guidance {self.guidance:g}; expected at least 1 of each"
            )
        if not 0 < self.strength <= 1:
            raise ValueError(f"model.sampler.strength is {self.strength:g}; expected a share above 0 and up to 1")

    def scheduler(self, config: dict[str, Any]) -> Any:
        """The diffusers scheduler, its timesteps set.

        Raises:
            ValueError: when there are more steps than noise levels.
        """
        import diffusers

        classes = {"ddim": "DDIMScheduler", "dpmsolver++": "DPMSolverMultistepScheduler", "ddpm": "DDPMScheduler"}
        own: dict[str, Any] = dict(DETERMINISTIC) if self.method == "dpmsolver++" else {}
        if str(config.get("variance_type")).startswith("learned"):
            own["variance_type"] = "fixed_small"  # `LatentDiffusion` leaves out what the denoiser says of it
        with torch.device("cpu"):  # Lightning builds models on their device, where NumPy cannot follow the scheduler
            scheduler = getattr(diffusers, classes[self.method]).from_config({**config, **own})
            levels = scheduler.config.num_train_timesteps
            if self.steps > levels:
                raise ValueError(
                    f"model.sampler.steps is {self.steps}; the model has {levels} noise levels, so set fewer"
                )
            scheduler.set_timesteps(self.steps)
        return scheduler


@torch.inference_mode()
def sample(
    diffusion: LatentDiffusion,
    sampler: Sampler,
    condition: Tensor,
    noises: Sequence[torch.Generator],
    start: Tensor | None = None,
) -> Tensor:
    """Samples latents, (B, C, h, w); each sample has a generator of its own, so that its batch does not matter.

    Args:
        diffusion: with trained weights.
        sampler: see there; the denoiser needs a null class where guidance is above 1.
        condition: pseudo-labels, int64 (B,), or features, float32 (B, D).
        noises: B generators, on the CPU.
        start: clean latents of real patches, where the strength is below 1.
    """
    device, scheduler = condition.device, sampler.scheduler(diffusion.process.config)
    latents = torch.stack([torch.randn(diffusion.latent_shape, generator=one) for one in noises]).to(device)
    timesteps = scheduler.timesteps
    if start is not None:
        first = len(timesteps) - max(1, round(len(timesteps) * sampler.strength))
        timesteps = timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        latents = diffusion.process.add_noise(start, latents, timesteps[:1].to(device).expand(len(start)))
    noisy_steps = {"generator": list(noises)} if sampler.method == "ddpm" else {}
    for timestep in timesteps:
        output = _guided(diffusion, latents, timestep.to(device), condition, sampler.guidance)
        latents = scheduler.step(output, timestep, latents, **noisy_steps).prev_sample
    return latents


def grid_samples(
    diffusion: LatentDiffusion, sampler: Sampler, condition: Tensor, at_once: int, start: Tensor | None = None
) -> Tensor:
    """Samples to look at while a model trains, of noise that is always the same, so that pictures compare over time.

    Args:
        diffusion: see `sample`, as for sampler, condition and start.
        sampler: how to.
        condition: of each sample.
        at_once: samples that memory has room for.
        start: of each sample.

    Returns:
        RGB in [0, 1], (B, 3, side, side), on the CPU.
    """
    images = []
    for numbers in torch.arange(len(condition)).split(at_once):
        noises = generators(0, "grid of samples", numbers.tolist())
        begin = None if start is None else start[numbers]
        latents = sample(diffusion, sampler, condition[numbers], noises, begin)
        images.append(diffusion.codec.decode(latents).clamp(0, 1).float().cpu())
    return torch.cat(images)


def _guided(
    diffusion: LatentDiffusion, latents: Tensor, timestep: Tensor, condition: Tensor, guidance: float
) -> Tensor:
    if guidance == 1:
        return diffusion(latents, timestep.expand(len(latents)), condition)
    both = torch.cat([condition, null_condition(diffusion.denoiser, condition)])
    output = diffusion(torch.cat([latents, latents]), timestep.expand(len(both)), both)
    conditional, unconditional = output.chunk(2)
    return unconditional + guidance * (conditional - unconditional)
