"""Augmentations of LR/HR pairs: batched, on the device, without random state; see `base.PairAugmentation`."""

from __future__ import annotations

from datamodules.augmentation.base import Compose, PairAugmentation
from datamodules.augmentation.colour import Brightness, Contrast, Inversion, RGBPermutation
from datamodules.augmentation.geometric import RandomFlip, RandomRotate90
from datamodules.augmentation.mixing import CutMix, Mixup
from datamodules.augmentation.recipes import RECIPES, resolve
from datamodules.augmentation.resampling import CutBlur, ScaleJitter

__all__ = [
    "RECIPES",
    "Brightness",
    "Compose",
    "Contrast",
    "CutBlur",
    "CutMix",
    "Inversion",
    "Mixup",
    "PairAugmentation",
    "RGBPermutation",
    "RandomFlip",
    "RandomRotate90",
    "ScaleJitter",
    "resolve",
]
