"""The rows of a comparison: what each trained network reached on each test set, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from comparison.results.untrained import Untrained

MEAN = "mean"
"""Name that the mean over test sets has where a set's name stands."""


class Cell(NamedTuple):
    """One SR training of a plan.

    Attributes:
        regime: how its data were made, such as `random`.
        teacher: whether a trained network had a part in its data; such rows are never ranked with others.
        recipe: how it was trained, the same for every regime.
        network: what was trained.
        budget: percent of the full set's pixels that the plan asks for; None where a regime has no budget (full data).
        seed: of the choice of data, initial weights, crops and augmentations.
    """

    regime: str
    teacher: bool
    recipe: str
    network: str
    budget: float | None
    seed: int


@dataclass(frozen=True)
class Row:
    """One training on one test set: a line of `results.csv`.

    Attributes:
        cell: the training.
        set: name of the test set.
        psnr_y: in dB, mean over the set's images.
        ssim_y: likewise.
        psnr_y_untrained: of what one has without a network, on the same images.
        ssim_y_untrained: likewise.
        untrained: what that is: `bicubic` upscaling, or the degraded `input`.
        psnr_rgb: over the three colours, in dB; None where it was not measured.
        lpips: lower is better; None where it was not measured.
        test_images: in the set.
        images: patches or photographs trained on.
        pixels: of these, in HR.
        bytes: of these, as files.
        percent: pixels of these in percent of the full set's.
        distillation_seconds: all stages before the SR training, each counted in whole, the training of a teacher too.
        training_seconds: of the SR training, with waiting for data, without validation.
        peak_memory_mib: largest resident memory of any of these stages.
        peak_gpu_mib: likewise on a GPU; None without one.
        updates: optimiser steps of the SR training.
        samples_per_second: of the SR training.
        commit: of the framework, with `+` where the tree had changes; None where unknown.
        protocol: of PSNR and SSIM.
        device: that the SR training ran on.
        train_folder: run folder of the SR training, relative to the comparison's root.
        test_folder: run folder of the test, likewise.
        distilled_folder: the distilled set, likewise; None for photographs as they are.
    """

    cell: Cell
    set: str
    psnr_y: float
    ssim_y: float
    psnr_y_untrained: float
    ssim_y_untrained: float
    untrained: Untrained
    psnr_rgb: float | None
    lpips: float | None
    test_images: int
    images: int
    pixels: int
    bytes: int
    percent: float
    distillation_seconds: float
    training_seconds: float
    peak_memory_mib: float
    peak_gpu_mib: float | None
    updates: int
    samples_per_second: float | None
    commit: str | None
    protocol: str
    device: str
    train_folder: str
    test_folder: str
    distilled_folder: str | None

    @property
    def total_seconds(self) -> float:
        """Distillation and training."""
        return self.distillation_seconds + self.training_seconds


@dataclass(frozen=True)
class ImageRow:
    """One test image of one training: a line of `per_image.csv`.

    Attributes:
        cell: the training.
        set: name of the test set.
        image: its name in the set.
        psnr_y: in dB.
        ssim_y: of the image.
        psnr_y_untrained: of what one has without a network, see `Row`.
        ssim_y_untrained: likewise.
    """

    cell: Cell
    set: str
    image: str
    psnr_y: float
    ssim_y: float
    psnr_y_untrained: float
    ssim_y_untrained: float
