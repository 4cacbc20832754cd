"""Samples against real patches in numbers, each beside what it is for real patches among themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from callbacks.sample_comparison import Comparison
from datamodules.augmentation.counter_rng import uniform
from datamodules.selection.distances import energy_distance, kernel_distance
from datamodules.spectra import power_beyond

HIGH_FREQUENCY = 0.25
"""Cycles per pixel: half of Nyquist's frequency."""

CLOSE = 0.05
"""Share of real patches that lie closer to one of another photograph than all others."""

ABOUT = {
    "kid": "unbiased squared MMD with the kernel (x.y / D + 1)^3, as KID (arXiv 1801.01401), but on the features named "
    "here, standardised over the real patches, and not on Inception's; compare it with kid_real_halves",
    "kid_real_halves": "the same between real patches of two halves of the photographs; near 0, and below it by chance",
    "energy_distance": "2 E|X - Y| - E|X - X'| - E|Y - Y'| on the same features; as nearest_distance in its unit",
    "energy_distance_real_halves": "the same between real patches of two halves of the photographs",
    "nearest_distance": "mean over samples of the distance to the nearest real patch; 1 is typical of two real patches",
    "nearest_distance_real": "mean over real patches of the distance to the nearest one of another photograph",
    "copied_share": f"share of samples closer to a real patch than {100 * CLOSE:g} % of real patches are to one of "
    f"another photograph; {CLOSE:g} is to be expected, and much more means memorised patches",
    "class_agreement": "share of samples whose nearest real patch has the pseudo-class that was asked for",
    "high_frequency_ratio": f"power beyond {HIGH_FREQUENCY:g} cycles per pixel, over that of real patches",
    "high_frequency_ratio_bicubic": "the same of real patches after bicubic down- and upscaling: what LR keeps",
    "psnr_bicubic": "median over samples, in dB; lower is more detail that LR loses",
    "psnr_bicubic_real": "median over real patches, in dB",
}
"""What each figure means, for whoever reads the file."""


def figures(comparison: Comparison) -> dict[str, float | int | None]:
    """The figures by name; see `ABOUT`. None where one is not defined, as of a single sample or photograph."""
    sampled, real = comparison.vectors
    halves = _halves(real, comparison.real.groups[comparison.real.drawn])
    return {
        "samples": len(sampled),
        "real_patches": len(real),
        "searched_patches": len(comparison.real.vectors),
        "kid": kernel_distance(sampled, real),
        "kid_real_halves": kernel_distance(*halves),
        "energy_distance": energy_distance(sampled, real),
        "energy_distance_real_halves": energy_distance(*halves),
        **_nearness(comparison.neighbours.distance, comparison.nearest_real.distance),
        "class_agreement": _agreement(comparison.samples.classes, comparison.neighbour_pairs.label),
        **_detail(comparison),
    }


def _halves(vectors: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """No photograph in both: patches of one are too much alike to tell how far two sets lie apart."""
    first = uniform(0, "halves of photographs", groups)[:, 0] < 0.5
    return vectors[first], vectors[~first]


def _nearness(sampled: Tensor, real: Tensor) -> dict[str, float | None]:
    figures: dict[str, float | None] = {"nearest_distance": float(sampled.mean())}
    if not real.isfinite().all():  # a single photograph
        return figures | {"nearest_distance_real": None, "copied_share": None}
    copied = (sampled < real.quantile(CLOSE)).double().mean()
    return figures | {"nearest_distance_real": float(real.mean()), "copied_share": float(copied)}


def _agreement(asked: list[int | None], found: Tensor | None) -> float | None:
    if found is None or None in asked:
        return None
    return float((torch.tensor(asked) == found).double().mean())


def _detail(comparison: Comparison) -> dict[str, Any]:
    power = {name: power_beyond(spectrum, HIGH_FREQUENCY) for name, spectrum in comparison.spectra.items()}
    sampled, real = comparison.psnr
    return {
        "high_frequency_ratio": power["sampled"] / power["real"] if power["real"] else None,
        "high_frequency_ratio_bicubic": power["bicubic"] / power["real"] if power["real"] else None,
        "psnr_bicubic": float(sampled.quantile(0.5)),
        "psnr_bicubic_real": float(real.quantile(0.5)),
    }
