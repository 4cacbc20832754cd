"""Rows as a comparison leaves them, made by formula: every figure can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comparison.results.rows import Cell, ImageRow, Row
from tests.plot_studies import write_log

BICUBIC = {"Set5": 28.4, "Set14": 26.0}
IMAGES = {"Set5": 5, "Set14": 14}


def make_row(cell: Cell, name: str, psnr_y: float, **changed: Any) -> Row:
    """A row with plausible costs."""
    percent = cell.budget or 100.0
    patches = round(13_965 * percent / 100)
    values: dict[str, Any] = {
        "psnr_y": psnr_y,
        "ssim_y": 0.7 + (psnr_y - 26) / 50,
        "psnr_y_untrained": BICUBIC[name],
        "ssim_y_untrained": 0.75,
        "untrained": "bicubic",
        "psnr_rgb": None,
        "lpips": None,
        "test_images": IMAGES[name],
        "images": patches,
        "pixels": patches * 64 * 64,
        "bytes": patches * 9_000,
        "percent": percent,
        "distillation_seconds": 0.0 if cell.budget is None else 20.0 + 100 * cell.teacher,
        "training_seconds": 60.0 + cell.seed,
        "peak_memory_mib": 900.0,
        "peak_gpu_mib": None,
        "updates": 2000,
        "samples_per_second": 400.0,
        "commit": "abc1234",
        "protocol": "Y of BT.601 from uint8 RGB, 4 pixels cropped",
        "device": "x86_64",
        "train_folder": f"stages/{cell.regime}/fit/0",
        "test_folder": f"stages/{cell.regime}/test/0",
        "distilled_folder": None if cell.budget is None else f"sets/{cell.regime}",
    }
    return Row(cell=cell, set=name, **{**values, **changed})


def make_images(row: Row, spread: float = 0.1) -> list[ImageRow]:
    """Images whose mean is the row's, to the last digit or so."""
    middle = (row.test_images - 1) / 2
    return [
        ImageRow(
            row.cell,
            row.set,
            f"img_{number:03d}.png",
            row.psnr_y + spread * (number - middle),
            row.ssim_y,
            row.psnr_y_untrained + spread * (number - middle),
            row.ssim_y_untrained,
        )
        for number in range(row.test_images)
    ]


@pytest.fixture
def study() -> tuple[list[Row], list[ImageRow]]:
    """Full data, random and `sharpening` at 0.68 and 5 %, with and without a teacher, two networks, three seeds."""
    level = {"full": 2.0, "random": 1.6, "sharpening": 1.8}
    rows = []
    for network, bonus in (("edsr_tiny", 0.0), ("swinir_light", 0.3)):
        for recipe, more in (("plain", 0.0), ("strong", 0.1)):
            for seed in range(3):
                for regime, gain in level.items():
                    for budget in (None,) if regime == "full" else (0.68, 5.0):
                        for teacher in (False,) if regime == "full" else (False, True):
                            cell = Cell(regime, teacher, recipe, network, budget, seed)
                            psnr = gain + bonus + more + 0.02 * seed + 0.1 * (budget == 5.0) + 0.05 * teacher
                            rows += [make_row(cell, name, BICUBIC[name] + psnr) for name in BICUBIC]
    return rows, [image for row in rows for image in make_images(row)]


@pytest.fixture
def row() -> Callable[..., Row]:
    """Makes single rows."""
    return make_row


@pytest.fixture
def trained(tmp_path: Path) -> tuple[list[Row], Path]:
    """Rows of full data and two regimes, three seeds each, and the folder with their logs."""
    rows = []
    for regime, level in {"full": 28.0, "random": 27.0, "sharpening": 27.5}.items():
        for seed in range(3):
            cell = Cell(regime, False, "plain", "edsr_tiny", None if regime == "full" else 0.68, seed)
            write_log(tmp_path / f"{regime}{seed}", [20.0, level + 0.1 * seed, level + 0.3 * seed, level + 1])
            rows += [make_row(cell, name, 28.0, train_folder=f"{regime}{seed}") for name in ("Set5", "Set14")]
    return rows, tmp_path


@pytest.fixture
def denoising(study: tuple[list[Row], list[ImageRow]]) -> tuple[list[Row], list[ImageRow]]:
    """`study` at scale 1, where the same figures are those of the degraded input, and RGB is measured too."""
    rows, images = study
    return [replace(row, untrained="input", psnr_rgb=row.psnr_y - 1.5) for row in rows], images
