"""The SR-specific term of diffusion fine-tuning: a generated patch is to hold detail that bicubic loses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.bicubic import downscale, upscale


class HighFrequency(nn.Module):
    """Rewards what shrinking and enlarging would lose, up to what the real patch has (Cho et al., arXiv 2509.14777).

    Per sample -min(h(predicted), h(real)), where h(x) = mean((x - U(D(x)))^2) over channels and positions, and D and U
    are MATLAB's bicubic down- and upscaling. The more detail, the lower; but noise has most of all, hence the clip: at
    the real patch's h the term stops, and its gradient is exactly zero where the prediction has more.

    The published code computes the term on the encoded real patch, where no gradient reaches the model, and enlarges
    before it shrinks, which loses next to nothing. This one is meant for the model's prediction of the clean patch:
    decoded to pixels, or, cheaper, the latent itself.

    Args:
        scale: that SR networks will be trained for, 2 or more.
        clip: whether the real patch bounds the term; without it the term is -h(predicted).

    Raises:
        ValueError: when scale is below 2: h would always be zero.
    """

    def __init__(self, scale: int = 4, clip: bool = True) -> None:
        super().__init__()
        if scale < 2:
            raise ValueError(f"HighFrequency's scale is {scale}; it must be 2 or more, as what it measures is lost")
        self.scale = scale
        self.clip = clip

    def forward(self, predicted: Tensor, real: Tensor) -> Tensor:
        """The term of each sample, computed in float32, also under autocast.

        Args:
            predicted: (B, C, H, W), floating point: pixels in [0, 1], or latents with any number of channels. H and W
                are multiples of the scale.
            real: the same shape and range; no gradient flows to it.

        Returns:
            (B,), float32, 0 or below.

        Raises:
            ValueError: when shapes differ, or H or W is no multiple of the scale.
        """
        self._check(predicted, real)
        detail = self._detail(predicted)
        if self.clip:
            with torch.no_grad():
                bound = self._detail(real)
            detail = torch.minimum(detail, bound)
        return -detail

    def _detail(self, images: Tensor) -> Tensor:
        images = images.float()
        lost = images - upscale(downscale(images, self.scale), self.scale)
        return lost.square().mean(dim=(1, 2, 3))

    def _check(self, predicted: Tensor, real: Tensor) -> None:
        if predicted.ndim != 4 or real.shape != predicted.shape:
            raise ValueError(
                f"predicted is {tuple(predicted.shape)} and real is {tuple(real.shape)}; both must be (B, C, H, W)"
            )
        height, width = predicted.shape[2:]
        if height % self.scale or width % self.scale:
            raise ValueError(
                f"patches or latents are {height} x {width}; HighFrequency needs sides that are multiples of its "
                f"scale {self.scale}: change the patch size, or compare pixels in place of latents"
            )
