"""What is learned: one LightningModule per file."""

from lightning_modules.distiller import Distiller
from lightning_modules.patch_selection import PatchSelection
from lightning_modules.relabelling import Relabelling
from lightning_modules.super_resolution import SuperResolution

__all__ = ["Distiller", "PatchSelection", "Relabelling", "SuperResolution"]
