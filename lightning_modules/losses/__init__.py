"""Losses: small modules and pure functions, selected from YAML."""

from lightning_modules.losses.adversarial import discriminator_loss, generator_loss, path_length_penalty, r1_penalty
from lightning_modules.losses.distribution_distance import MMD, DistributionDistance, Frechet, SlicedWasserstein
from lightning_modules.losses.high_frequency import HighFrequency
from lightning_modules.losses.minimax import ClassMemory, Minimax, MinimaxLosses
from lightning_modules.losses.pixel import L1, MSE, Charbonnier, FFTLoss, PixelLoss

__all__ = [
    "L1",
    "MMD",
    "MSE",
    "Charbonnier",
    "ClassMemory",
    "DistributionDistance",
    "FFTLoss",
    "Frechet",
    "HighFrequency",
    "Minimax",
    "MinimaxLosses",
    "PixelLoss",
    "SlicedWasserstein",
    "discriminator_loss",
    "generator_loss",
    "path_length_penalty",
    "r1_penalty",
]
