"""Vectors of patches, in which a distance means something."""

from __future__ import annotations

from datamodules.selection.features.descriptor import Descriptor
from datamodules.selection.features.open_clip_encoder import OpenCLIP
from datamodules.selection.features.timm_backbone import TimmBackbone

__all__ = ["Descriptor", "OpenCLIP", "TimmBackbone"]
