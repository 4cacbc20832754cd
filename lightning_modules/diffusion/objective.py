"""What a diffusion model is fine-tuned with: denoising, minimax terms, and detail that bicubic loses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from datamodules.pair import PairBatch
from lightning_modules.diffusion.latent_diffusion import Denoised, LatentDiffusion
from lightning_modules.losses.high_frequency import HighFrequency
from lightning_modules.losses.minimax import Minimax


@dataclass(frozen=True)
class LossTerms:
    """Weights of the loss L_simple + l_r L_r + l_d L_d + l_sr L_sr (arXiv 2509.14777); 0 switches a term off.

    Attributes:
        simple: of the denoising error.
        representativeness: l_r; published 0.002.
        diversity: l_d; published 0.008.
        high_frequency: l_sr. The published term has no gradient, and so no weight to take over.
        memory: latents per class that representativeness and diversity look back on; published 64.
        high_frequency_on: `pixels` decodes the predicted latents; `latents` is cheaper.
        min_snr: gamma of min-SNR weighting of the denoising error, 5 in its paper (arXiv 2303.09556); null is without.

    Raises:
        ValueError: when a number is out of range.
    """

    simple: float = 1.0
    representativeness: float = 0.002
    diversity: float = 0.008
    high_frequency: float = 1.0
    memory: int = 64
    high_frequency_on: Literal["pixels", "latents"] = "pixels"
    min_snr: float | None = None

    def __post_init__(self) -> None:
        for key in ("simple", "representativeness", "diversity", "high_frequency"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ValueError(f"model.losses.{key} is {getattr(self, key)}; expected 0 (off) or more")
        if not (self.simple or self.minimax or self.high_frequency):
            raise ValueError("model.losses has only weights of 0, which train nothing; set one, such as simple")
        if self.memory < 1 or (self.min_snr is not None and not self.min_snr > 0):
            raise ValueError(
                f"model.losses has memory {self.memory} and min_snr {self.min_snr}; expected at least 1 latent, and a "
                "positive gamma or null"
            )

    @property
    def minimax(self) -> bool:
        """Whether memories are needed."""
        return self.representativeness > 0 or self.diversity > 0


class Objective(nn.Module):
    """The terms of the loss; memories are its buffers, so that a checkpoint has them.

    Args:
        terms: their weights.
        classes: number of pseudo-classes.
        latent_shape: (C, h, w).
        scale: that SR networks will be trained for.
    """

    def __init__(self, terms: LossTerms, classes: int, latent_shape: tuple[int, int, int], scale: int) -> None:
        super().__init__()
        self.terms = terms
        self.minimax = Minimax(classes, math.prod(latent_shape), terms.memory) if terms.minimax else None
        self.high_frequency = HighFrequency(scale) if terms.high_frequency else None

    def forward(self, denoised: Denoised, batch: PairBatch, diffusion: LatentDiffusion) -> dict[str, Tensor]:
        """The terms that are switched on, unweighted, by the names of their weights.

        Args:
            denoised: of the batch.
            batch: floating point, with labels.
            diffusion: decodes.
        """
        losses = {}
        if self.terms.simple:
            losses["simple"] = diffusion.weighted_error(denoised, self.terms.min_snr)
        if self.minimax is not None:
            assert batch.label is not None
            latents = denoised.predicted.flatten(1), denoised.clean.flatten(1)
            minimax = self.minimax(*latents, batch.label, batch.index)._asdict()
            losses |= {name: loss for name, loss in minimax.items() if getattr(self.terms, name)}
        if self.high_frequency is not None:
            losses["high_frequency"] = self._detail(self.high_frequency, denoised, batch, diffusion)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        return torch.stack([getattr(self.terms, name) * loss for name, loss in losses.items()]).sum()

    def _detail(self, term: HighFrequency, denoised: Denoised, batch: PairBatch, diffusion: LatentDiffusion) -> Tensor:
        """Where noise hides the patch, its prediction is a mean, which cannot have detail: it counts the less there."""
        if self.terms.high_frequency_on == "latents":
            each = term(denoised.predicted, denoised.clean)
        else:
            each = term(diffusion.codec.decode(denoised.predicted), batch.hr)
        return (each * diffusion.process.meaningful(denoised.timesteps)).mean()
