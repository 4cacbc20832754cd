"""Crops of the test images, and of the places in them, where the trainings of a comparison differ most."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from callbacks.drawing import draw_rows, highest_window
from comparison.pictures.picture import CropRow, Panel
from comparison.results.formatting import format_percent, format_psnr
from comparison.results.rows import Cell, ImageRow, Row
from datamodules.benchmarks import Benchmarks
from datamodules.degradation import Chain
from datamodules.evaluation import EvaluationSet
from datamodules.pair import to_uint8
from lightning_modules.metrics import rgb_to_y
from lightning_modules.networks.trained import load_trained
from lightning_modules.upscaling import baseline, baseline_name, upscale

CHECKPOINT = Path("checkpoints", "last.ckpt")
"""Of a run folder: the weights that were tested."""

MOST = 8
"""Trainings side by side."""

PREFERRED = "strong"
"""Recipe whose trainings are shown where it is one of the plan's."""

TILE = 1024
"""HR pixels: larger images go through the networks in such tiles (see `upscale`)."""

OVERLAP = 32
"""LR pixels that tiles share on each side."""

ENLARGED = 2
"""Pixels of the sheet for one of a crop."""


class _Reconstructed(NamedTuple):
    """A test image and what is made of its LR: uint8, (3, H, W), LR smaller by the scale; SR in the order of cells."""

    lr: Tensor
    hr: Tensor
    untrained: Tensor
    sr: list[Tensor]


def cells_to_show(rows: Sequence[Row]) -> list[Cell]:
    """Trainings that differ in their data alone: full data and every regime at the smallest budget.

    They have the first network, the recipe `strong` (without it the first one) and the smallest seed.

    Args:
        rows: in the order of the plan.

    Returns:
        At most `MOST`: photographs as they are before distilled sets, all with a teacher last.
    """
    cells = list(dict.fromkeys(row.cell for row in rows))
    if not cells:
        return []
    alike = [cell for cell in cells if cell.network == cells[0].network]
    recipes = [cell.recipe for cell in alike]
    recipe = PREFERRED if PREFERRED in recipes else recipes[0]
    alike = [cell for cell in alike if cell.recipe == recipe]
    seed = min(cell.seed for cell in alike)
    budget = min((cell.budget for cell in alike if cell.budget is not None), default=None)
    shown = [cell for cell in alike if cell.seed == seed and cell.budget in (None, budget)]
    return sorted(shown, key=lambda cell: (cell.teacher, cell.budget is not None))[:MOST]


def largest_differences(per_image: Sequence[ImageRow], cells: Sequence[Cell], count: int) -> list[tuple[str, str]]:
    """Test images on which the trainings differ most: by the range of their PSNR-Y.

    The sets take turns, so that a set of easy images is seen too: first the top image of each set, the one with the
    largest range first, then the second one of each, and so on.

    Args:
        per_image: of all trainings; images that one of `cells` was not tested on are passed over.
        cells: the trainings.
        count: of images, fewer where there are not as many.

    Returns:
        (set, image), equal ranges by name.
    """
    values: dict[tuple[str, str], dict[Cell, float]] = {}
    for row in per_image:
        if row.cell in cells:
            values.setdefault((row.set, row.image), {})[row.cell] = row.psnr_y
    ranges = {place: _range(psnr.values()) for place, psnr in values.items() if len(psnr) == len(cells)}
    turns: dict[str, int] = {}
    order = []
    for place in sorted(ranges, key=lambda place: (-ranges[place], place)):
        turns[place[0]] = turns.get(place[0], 0) + 1
        order.append((turns[place[0]], place))
    order.sort(key=lambda entry: entry[0])  # stable: within a turn by range
    return [place for _, place in order[:count]]


def _range(psnr: Collection[float]) -> float:
    lowest, highest = min(psnr), max(psnr)
    return 0.0 if lowest == highest else highest - lowest  # both may be infinite


def crop_rows(
    rows: Sequence[Row],
    per_image: Sequence[ImageRow],
    root: Path,
    benchmarks: Benchmarks,
    scale: int,
    degradation: Chain | None = None,
    count: int = 4,
    side: int = 96,
) -> list[CropRow]:
    """LR, bicubic, the trainings of `cells_to_show` and HR, where the trainings differ most.

    At scale 1: the degraded input, the trainings and the truth. Every network is loaded once and upscales `count` whole
    images on the CPU.

    Args:
        rows: of the comparison.
        per_image: likewise; the PSNR beside the crops is taken from here.
        root: that run folders in `rows` are relative to.
        benchmarks: test sets of the comparison.
        scale: of the networks.
        degradation: that the test sets were degraded with; None for the exact bicubic reduction.
        count: of images.
        side: of the crops in HR pixels; multiples of the scale are used, and less where an image is smaller.

    Returns:
        The rows; none when there are no two trainings to tell apart. Pictures have a pixel for each HR pixel.

    Raises:
        FileNotFoundError: when a test set or a checkpoint is missing.
        ValueError: when a test set does not hold an image any more, or a checkpoint cannot be read.
    """
    cells = cells_to_show(rows)
    if len(cells) < 2:
        return []
    folders = {row.cell: root / row.train_folder for row in rows}
    networks = [load_trained(folders[cell] / CHECKPOINT).network for cell in cells]
    sets = {images.name: images for images in benchmarks.open(scale, degradation)}
    measured = {(row.set, row.image, row.cell): row for row in per_image}
    return [
        _crop_row([measured[*place, cell] for cell in cells], _reconstruct(*_read(sets, *place), networks), side)
        for place in largest_differences(per_image, cells, count)
    ]


def crop_sheet(rows: Sequence[CropRow]) -> Image.Image:
    """All rows, at least one, as one labelled picture; crops are enlarged `ENLARGED` times."""
    return draw_rows(
        [
            (row.caption, {f"{panel.label}\n{panel.detail}": _enlarged(panel.picture) for panel in row.panels})
            for row in rows
        ]
    )


def most_different_window(sr: Tensor, hr: Tensor, side: int, scale: int) -> tuple[int, int, int, int]:
    """Where the quality of several reconstructions of one image differs most.

    It is the window with the largest sum of (highest - lowest squared error), both taken over the reconstructions in
    each pixel, of luma.

    Args:
        sr: uint8, (N, 3, H, W), N reconstructions.
        hr: uint8, (3, H, W), the truth.
        side: of the window in HR pixels.
        scale: the window lies on LR pixels.

    Returns:
        Top, left, height and width in HR pixels.
    """
    errors = (rgb_to_y(sr.double() / 255) - rgb_to_y(hr.double() / 255)).square()[:, 0]
    return highest_window(errors.amax(0) - errors.amin(0), side, scale)


def _read(sets: Mapping[str, EvaluationSet], name: str, image: str) -> tuple[Tensor, Tensor]:
    """LR and HR of a test image."""
    if name not in sets or image not in sets[name].names:
        raise ValueError(
            f"test set {name} holds no image {image}, which was tested on; restore it, or name the folder of the test "
            "sets that the comparison was made with (data.benchmarks.root or SRDISTILL_DATA)"
        )
    lr, hr, _ = sets[name][sets[name].names.index(image)]
    return lr, hr


def _reconstruct(lr: Tensor, hr: Tensor, networks: Sequence[nn.Module]) -> _Reconstructed:
    scale, images = hr.shape[-1] // lr.shape[-1], lr[None].float() / 255
    sr = [upscale(network, images, scale, tile=TILE // scale, overlap=OVERLAP) for network in networks]
    return _Reconstructed(lr, hr, to_uint8(baseline(images, scale))[0], [to_uint8(image)[0] for image in sr])


def _crop_row(measured: Sequence[ImageRow], image: _Reconstructed, side: int) -> CropRow:
    scale = image.hr.shape[-1] // image.lr.shape[-1]
    top, left, height, width = most_different_window(torch.stack(image.sr), image.hr, side, scale)
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    trained = [
        Panel(_label(row.cell), _decibels(row.psnr_y), _to_picture(sr[window]))
        for row, sr in zip(measured, image.sr, strict=True)
    ]
    untrained = _decibels(measured[0].psnr_y_untrained)
    panels = (
        *([Panel("LR", "", _to_picture(_squares(image.lr, scale)[window]))] if scale > 1 else []),
        Panel(baseline_name(scale), untrained, _to_picture(image.untrained[window])),
        *trained,
        Panel("HR" if scale > 1 else "truth", "", _to_picture(image.hr[window])),
    )
    return CropRow(_caption(measured, (top, left, height, width)), panels)


def _label(cell: Cell) -> str:
    return f"{cell.regime}, with teacher" if cell.teacher else cell.regime


def _decibels(psnr: float) -> str:
    return f"{format_psnr(psnr)} dB"


def _caption(measured: Sequence[ImageRow], window: tuple[int, int, int, int]) -> str:
    top, left, height, width = window
    cell, apart = measured[-1].cell, _range([row.psnr_y for row in measured])
    budget = "" if cell.budget is None else f", distilled sets of {format_percent(cell.budget)}"
    return (
        f"{measured[0].set}, {measured[0].image}: up to {_decibels(apart)} apart; {width} x {height} pixels from row "
        f"{top}, column {left}; {cell.network}, {cell.recipe}, seed {cell.seed}{budget}"
    )


def _to_picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def _enlarged(picture: Image.Image) -> Tensor:
    """Float in [0, 1], (3, ENLARGED * H, ENLARGED * W)."""
    return _squares(torch.from_numpy(np.array(picture)).permute(2, 0, 1), ENLARGED).float() / 255


def _squares(pixels: Tensor, side: int) -> Tensor:
    """(3, side * H, side * W): every pixel of (3, H, W) is seen as it is."""
    return pixels.repeat_interleave(side, 1).repeat_interleave(side, 2)
