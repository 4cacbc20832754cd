"""Degradations of clean images: batched, on the device, without random state; see `base.Degradation`."""

from __future__ import annotations

from datamodules.degradation.base import Chain, Degradation, seeds_of
from datamodules.degradation.bicubic_reduction import Bicubic
from datamodules.degradation.blur import GaussianBlur, MotionBlur
from datamodules.degradation.jpeg import JPEG
from datamodules.degradation.low_light import LowLight
from datamodules.degradation.noise import GaussianNoise, PoissonNoise
from datamodules.degradation.one_of import OneOf
from datamodules.degradation.weather import Haze, RainStreaks

__all__ = [
    "JPEG",
    "Bicubic",
    "Chain",
    "Degradation",
    "GaussianBlur",
    "GaussianNoise",
    "Haze",
    "LowLight",
    "MotionBlur",
    "OneOf",
    "PoissonNoise",
    "RainStreaks",
    "seeds_of",
]
