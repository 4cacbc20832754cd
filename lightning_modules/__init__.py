"""What is learned: one LightningModule per file."""

from lightning_modules.complexity_regression import ComplexityRegression
from lightning_modules.diffusion_prior import DiffusionPrior
from lightning_modules.distiller import Distiller
from lightning_modules.distribution_alignment import DistributionAlignment
from lightning_modules.gan_inversion import GANInversion
from lightning_modules.gan_prior import GANPrior
from lightning_modules.lora_diffusion import LoRADiffusion
from lightning_modules.network_features import NetworkFeatures
from lightning_modules.patch_selection import PatchSelection
from lightning_modules.relabelling import Relabelling
from lightning_modules.super_resolution import SuperResolution

__all__ = [
    "ComplexityRegression",
    "DiffusionPrior",
    "Distiller",
    "DistributionAlignment",
    "GANInversion",
    "GANPrior",
    "LoRADiffusion",
    "NetworkFeatures",
    "PatchSelection",
    "Relabelling",
    "SuperResolution",
]
