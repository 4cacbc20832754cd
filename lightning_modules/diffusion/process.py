"""The noise process: what is added to clean latents, what the denoiser learns to predict, and back to clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What denoisers predict: noise, v = sqrt(a) noise - sqrt(1 - a) clean (Salimans and Ho, 2022), or the clean latent."""


class NoiseProcess(nn.Module):
    """Variance-preserving noise in discrete steps, as a diffusers scheduler configures it.

    With a_t the scheduler's `alphas_cumprod`: noisy = sqrt(a_t) clean + sqrt(1 - a_t) noise (Ho et al., DDPM, 2020).

    Args:
        config: of a diffusers scheduler: beta schedule, number of steps, prediction type.

    Attributes:
        config: as given.
        prediction_type: one of `PREDICTIONS`.
        alphas_cumprod: float32 (T,), falling.

    Raises:
        ValueError: for an unknown prediction type or beta schedule, or a scheduler that has none (of flow matching).
    """

    alphas_cumprod: Tensor

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from diffusers import DDPMScheduler

        self.config = {key: value for key, value in config.items() if not key.startswith("_")}
        self.prediction_type = str(self.config.get("prediction_type", "epsilon"))
        if self.prediction_type not in PREDICTIONS:
            raise ValueError(
                f"the scheduler's prediction_type is {self.prediction_type!r}; expected one of {', '.join(PREDICTIONS)}"
            )
        if "beta_schedule" not in self.config:
            raise ValueError(
                f"the scheduler {config.get('_class_name', '')} has no beta_schedule; expected one of discrete noise "
                "levels, such as DDIMScheduler"
            )
        try:
            scheduler = DDPMScheduler.from_config(self.config)
        except (NotImplementedError, ValueError) as error:
            raise ValueError(f"the scheduler's configuration cannot be used: {error}") from error
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.float(), persistent=False)

    @property
    def steps(self) -> int:
        """T, the number of noise levels."""
        return len(self.alphas_cumprod)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents of clean ones, (B, C, h, w), at timesteps int64 (B,) in [0, T)."""
        signal, sigma = self._scales(timesteps)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser is to predict."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        signal, sigma = self._scales(timesteps)
        return signal * noise - sigma * clean

    def clean(self, output: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latents that a prediction amounts to."""
        if self.prediction_type == "sample":
            return output
        signal, sigma = self._scales(timesteps)
        if self.prediction_type == "v_prediction":
            return signal * noisy - sigma * output
        return (noisy - sigma * output) / signal.clamp_min(1e-4)  # with no signal left, noise tells nothing

    def meaningful(self, timesteps: Tensor) -> Tensor:
        """a_t, (B,), in (0, 1): how much of the clean latent shows, so that its prediction is more than a mean."""
        return self.alphas_cumprod[timesteps]

    def min_snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Weights of the loss, (B,), that stop the easy low noise levels from leading: min(SNR, gamma) in clean space.

        Hang et al., ICCV 2023, arXiv 2303.09556; in the space of the prediction that is min(SNR, gamma) / SNR for
        noise and min(SNR, gamma) / (SNR + 1) for v.
        """
        alpha = self.alphas_cumprod[timesteps]
        snr = alpha / (1 - alpha)
        capped = snr.clamp_max(gamma)
        if self.prediction_type == "sample":
            return capped
        return capped / snr.clamp_min(1e-8) if self.prediction_type == "epsilon" else capped / (snr + 1)

    def _scales(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas_cumprod[timesteps][:, None, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()


def scheduler_config(prediction_type: str, schedule: str, zero_snr: bool, clip: bool) -> dict[str, Any]:
    """Configuration of a diffusers scheduler for a denoiser trained from scratch.

    Args:
        prediction_type: one of `PREDICTIONS`.
        schedule: of the betas, as diffusers names them: `linear`, `scaled_linear`, `squaredcos_cap_v2`.
        zero_snr: leave no signal at the last step, so that brightness is learned (Lin et al., WACV 2024).
        clip: clip predicted clean latents to [-1, 1], which pixels lie in.
    """
    return {
        "num_train_timesteps": 1000,
        "beta_schedule": schedule,
        "prediction_type": prediction_type,
        "rescale_betas_zero_snr": zero_snr,
        "timestep_spacing": "trailing",
        "clip_sample": clip,
    }
