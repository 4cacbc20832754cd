"""Losses between a network's output and its target, pixel by pixel or frequency by frequency."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelLoss(nn.Module, ABC):
    """Base of the losses that an SR network can be trained with; narrow, so that `--help` lists only those."""

    @abstractmethod
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of two float tensors (B, C, H, W), colours in [0, 1]."""


class L1(PixelLoss):
    """Mean absolute difference: what EDSR, RCAN, SwinIR and most others train with."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean |prediction - target|."""
        return F.l1_loss(prediction, target)


class MSE(PixelLoss):
    """Mean squared difference, which PSNR measures."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean (prediction - target)^2."""
        return F.mse_loss(prediction, target)


class Charbonnier(PixelLoss):
    """A smooth L1 (Lai et al., LapSRN, CVPR 2017).

    Args:
        eps: half-width of the rounded tip, in colours of [0, 1]; the paper's 1e-3.

    Raises:
        ValueError: when eps is not positive: the gradient would be undefined where prediction equals target.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(f"Charbonnier's eps is {eps}; it must be positive, e.g. 1e-3")
        self.eps = eps

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean sqrt((prediction - target)^2 + eps^2)."""
        return torch.sqrt((prediction - target) ** 2 + self.eps**2).mean()


class FFTLoss(PixelLoss):
    """L1 in colours plus L1 in frequencies, which holds on to fine detail (Cho et al., MIMO-UNet, ICCV 2021).

    As in the published code the transform is not normalised, so the second term grows with the side of the patch, and
    weights from papers can be used as they are. It runs over the half plane that a real image's spectrum consists of.

    Args:
        weight: of the frequency term; 0.1 in MIMO-UNet (deblurring), 0.05 in SAFMN (Sun et al., ICCV 2023; SR).

    Raises:
        ValueError: when weight is negative.
    """

    def __init__(self, weight: float = 0.05) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"FFTLoss's weight is {weight}; it must not be negative")
        self.weight = weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean |d| + weight * mean(|Re rfft2(d)|, |Im rfft2(d)|) with d = prediction - target."""
        difference = (prediction - target).float()  # there is no bfloat16 transform
        spectrum = torch.view_as_real(torch.fft.rfft2(difference))
        return difference.abs().mean() + self.weight * spectrum.abs().mean()
