"""Degradations of clean images: batched, on the device, without random state; see `base.Degradation`."""

from __future__ import annotations

from datamodules.degradation.base import Chain, Degradation

__all__ = ["Chain", "Degradation"]
