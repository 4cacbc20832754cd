"""Inversion: latents whose patches reproduce real ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from lightning_modules.gan.generator import Generator


@dataclass(frozen=True)
class InversionTerms:
    """Weights of the loss that latents are inverted with.

    Attributes:
        pixel: of the mean squared difference of pixels in [0, 1].
        feature: of that of features, as a share of the real features' mean square; from the matching's network.

    Raises:
        ValueError: when a weight is negative, or both are 0.
    """

    pixel: float = 1.0
    feature: float = 0.01

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"model.inversion.{key} is {value}; expected 0 or more")
        if not self.pixel + self.feature:
            raise ValueError("model.inversion.pixel and feature are both 0; set one of them, or inversion_steps to 0")


def inversion_gradient(
    generator: Generator,
    latents: Tensor,
    targets: Callable[[Tensor], Tensor],
    chunks: Sequence[Tensor],
    terms: InversionTerms,
    network: nn.Module | None,
) -> tuple[Tensor, Tensor]:
    """Gradient of the sum of the losses of all latents, for those of some chunks, and how near their patches are.

    Args:
        generator: decodes.
        latents: float32 (N, *latent_shape).
        targets: real patches, float32 in [0, 1], (B, 3, side, side), of positions, int64 (B,).
        chunks: positions that this process computes.
        terms: weights.
        network: gives features (B, D) of patches; None where their weight is 0.

    Returns:
        Gradient as the latents, zero outside of the chunks; PSNR over RGB in dB of each patch, (N,), likewise.
    """
    gradient, psnr = torch.zeros_like(latents), latents.new_zeros(len(latents))
    for chunk in chunks:
        leaf = latents[chunk].detach().requires_grad_()
        patches, real = generator.decode(leaf), targets(chunk)
        errors = (patches - real).square().flatten(1).mean(1)
        loss = terms.pixel * errors.sum()
        if network is not None:
            loss = loss + terms.feature * _feature_errors(network, patches, real).sum()
        (gradient[chunk],) = torch.autograd.grad(loss, leaf)
        psnr[chunk] = -10 * errors.detach().clamp_min(1e-10).log10()
    return gradient, psnr


def _feature_errors(network: nn.Module, patches: Tensor, real: Tensor) -> Tensor:
    with torch.no_grad():
        expected = network(real)
    power = expected.square().mean(1).clamp_min(1e-12)
    errors: Tensor = (network(patches) - expected).square().mean(1) / power
    return errors
