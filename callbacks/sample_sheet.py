"""Samples above the real patches that lie nearest to them, class by class."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from callbacks.sample_comparison import Comparison
from callbacks.sheets import SheetRow, contact_sheet, spread

COLUMNS = 10
CLASSES = 16
"""That are shown."""

CAPTIONS = (
    "below samples: PSNR of bicubic; below real patches: distance from the sample in feature space, "
    "where 0 is a copy and 1 typical of two real patches"
)


class _Shown(NamedTuple):
    """Samples side by side: lines to their left, and their numbers."""

    label: list[str]
    numbers: list[int]


def sample_sheet(comparison: Comparison, patches: int) -> Image.Image:
    """Two rows per pseudo-class, samples and their nearest real patches; first the closest pairs of all.

    Args:
        comparison: of samples and real patches of one side.
        patches: at most so many samples are shown of the classes, and at least one of each.
    """
    rows = [row for shown in [_closest(comparison), *_members(comparison, patches)] for row in _pair(comparison, shown)]
    classes = {label for label in comparison.samples.classes if label is not None}
    kinds = f" of {len(classes)} pseudo-classes" if classes else ""
    counts = f"{len(comparison.samples.pixels):,} samples{kinds}", f"{len(comparison.real.vectors):,} real patches"
    return contact_sheet(rows, [f"{counts[0]}, each above its nearest of {counts[1]}", CAPTIONS])


def _closest(comparison: Comparison) -> _Shown:
    """Where copies of real patches would be."""
    return _Shown(["closest of all"], comparison.neighbours.distance.argsort(stable=True)[:COLUMNS].tolist())


def _members(comparison: Comparison, patches: int) -> list[_Shown]:
    classes = comparison.samples.classes
    labels = sorted({label for label in classes if label is not None})
    if not labels:
        some = spread(len(classes), patches)
        return [_Shown(["samples"], some[start : start + COLUMNS]) for start in range(0, len(some), COLUMNS)]
    shown = [labels[number] for number in spread(len(labels), CLASSES)]
    return [_class(label, classes, max(1, min(COLUMNS, patches // len(shown)))) for label in shown]


def _class(label: int, classes: list[int | None], most: int) -> _Shown:
    numbers = [number for number, own in enumerate(classes) if own == label]
    return _Shown(
        [f"class {label}", f"{len(numbers):,} sample{'s' * (len(numbers) != 1)}"],
        [numbers[place] for place in spread(len(numbers), most)],
    )


def _pair(comparison: Comparison, shown: _Shown) -> list[SheetRow]:
    psnr = [f"{value:.1f} dB" for value in comparison.psnr[0][shown.numbers].tolist()]
    distances = [f"{value:.2f}" for value in comparison.neighbours.distance[shown.numbers].tolist()]
    return [
        SheetRow(comparison.samples.pixels[shown.numbers], psnr, shown.label),
        SheetRow(comparison.neighbour_pairs.hr[shown.numbers], distances, ["", "nearest real"]),
    ]
