"""What is learned: one LightningModule per file."""

from lightning_modules.super_resolution import SuperResolution

__all__ = ["SuperResolution"]
