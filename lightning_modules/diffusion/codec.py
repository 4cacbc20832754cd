"""Between pixels and latents: an autoencoder of diffusers, or none."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


class Codec(nn.Module, ABC):
    """Encodes patches and decodes latents.

    Attributes:
        factor: pixels along a side of one latent position.
        channels: of the latents.
    """

    factor: int
    channels: int

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of variance near 1, (B, C, side / factor, side / factor), of RGB in [0, 1], (B, 3, side, side)."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """RGB, near [0, 1] and not clipped, with gradient."""


class PixelSpace(Codec):
    """No autoencoder: latents are the pixels, in [-1, 1]."""

    factor, channels = 1, 3

    def encode(self, pixels: Tensor) -> Tensor:
        """2 x - 1."""
        return 2 * pixels - 1

    def decode(self, latents: Tensor) -> Tensor:
        """(z + 1) / 2."""
        return (latents + 1) / 2


class Autoencoder(Codec):
    """AutoencoderKL or AutoencoderTiny; latents are the posterior's mode, scaled as the model's configuration says.

    Args:
        model: of diffusers.

    Attributes:
        model: as given.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.factor = 2 ** (len(_stages(model)) - 1)
        self.channels = int(self.model.config.latent_channels)

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Codec.encode`."""
        latents, _ = self.raw(pixels)
        return (latents - self._shift) * self.model.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """See `Codec.decode`."""
        return self.from_raw(latents / self.model.config.scaling_factor + self._shift)

    def raw(self, pixels: Tensor, seeded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents before scaling, and their divergence from standard normal ones per latent number, (B,).

        Args:
            pixels: RGB in [0, 1].
            seeded: noise like the latents, to draw from the posterior; None takes its mode. AutoencoderTiny has no
                variance: its latents are the mean of a normal distribution of variance 1.
        """
        with _precise(pixels):
            encoded = self.model.encode(2 * pixels - 1)
        if hasattr(encoded, "latent_dist"):
            posterior = encoded.latent_dist
            latents = posterior.mean if seeded is None else posterior.mean + posterior.std * seeded
            return latents, posterior.kl() / latents[0].numel()
        return encoded.latents, 0.5 * encoded.latents.square().mean((1, 2, 3))

    def from_raw(self, latents: Tensor) -> Tensor:
        """RGB of latents before scaling."""
        with _precise(latents):
            decoded: Tensor = self.model.decode(latents).sample
        return (decoded.float() + 1) / 2

    @property
    def _shift(self) -> float:
        return float(getattr(self.model.config, "shift_factor", None) or 0.0)


@dataclass(frozen=True)
class AutoencoderSpec:
    """An autoencoder to train from scratch.

    Attributes:
        kind: `tiny` is AutoencoderTiny (convolutions only), `kl` AutoencoderKL (that of Stable Diffusion).
        channels: of every stage.
        stages: each but the last halves the sides: 3 make latents of a quarter of the side.
        latent_channels: numbers per latent position; more of them keep more detail and are harder to sample.
        blocks: residual blocks per stage.

    Raises:
        ValueError: when a number is not positive.
    """

    kind: Literal["tiny", "kl"] = "tiny"
    channels: int = 32
    stages: int = 3
    latent_channels: int = 4
    blocks: int = 1

    def __post_init__(self) -> None:
        for key in ("channels", "stages", "latent_channels", "blocks"):
            if getattr(self, key) < 1:
                raise ValueError(f"model.autoencoder.{key} is {getattr(self, key)}; expected at least 1")

    def build(self, side: int) -> Autoencoder:
        """A fresh one for patches of `side` pixels."""
        from diffusers import AutoencoderKL, AutoencoderTiny

        widths, blocks = (self.channels,) * self.stages, (self.blocks,) * self.stages
        if self.kind == "tiny":
            return Autoencoder(
                AutoencoderTiny(
                    encoder_block_out_channels=widths,
                    decoder_block_out_channels=widths,
                    num_encoder_blocks=blocks,
                    num_decoder_blocks=blocks,
                    latent_channels=self.latent_channels,
                ).to(memory_format=torch.channels_last)
            )
        return Autoencoder(
            AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * self.stages,
                up_block_types=("UpDecoderBlock2D",) * self.stages,
                block_out_channels=widths,
                layers_per_block=self.blocks,
                latent_channels=self.latent_channels,
                norm_num_groups=math.gcd(32, self.channels),
                sample_size=side,
            ).to(memory_format=torch.channels_last)
        )


def _precise(tensor: Tensor) -> torch.autocast:
    """Full precision where no gradient is needed: bfloat16 would round the pixels that are kept."""
    device = tensor.device.type
    return torch.autocast(device, enabled=torch.is_autocast_enabled(device) and torch.is_grad_enabled())


def _stages(model: Any) -> list[int]:
    config = model.config
    return list(getattr(config, "block_out_channels", None) or config.encoder_block_out_channels)
