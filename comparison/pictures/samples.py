"""What distilled sets look like: a contact sheet of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from callbacks.sheets import SheetRow, contact_sheet, spread, titled
from comparison.pictures.picture import Sample
from comparison.results.formatting import format_percent
from comparison.results.rows import Row
from datamodules.distilled import DistilledSet, Pixels, read_distilled
from datamodules.distilled.decoding import images_of
from datamodules.image_files import read_rgb
from datamodules.paths import cache_folder

COLUMNS = 8
LEAST_MEMBERS = 4
"""Of a pseudo-class, in its row."""

Line = Mapping[str, Any]
"""Of metadata.jsonl."""


class _Shown(NamedTuple):
    """A row of the sheet: lines to its left, and the patches."""

    label: tuple[str, ...]
    lines: list[Line]


def sample_sheets(rows: Sequence[Row], root: Path, patches: int = 32) -> list[Sample]:
    """A contact sheet of every distilled set that was trained on, of the smallest seed.

    Args:
        rows: of the comparison; of several sets of one regime, budget and use of a teacher the first is shown.
        root: that `distilled_folder` of the rows is relative to.
        patches: at most so many are shown of a set, at least 1.

    Returns:
        In the order of the rows, sets with a teacher last; none for photographs as they are.

    Raises:
        FileNotFoundError: when a set or one of its files is missing.
        ValueError: when it is no distilled set.
    """
    sets: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: (row.cell.teacher, row.cell.seed)):
        if row.distilled_folder is not None:
            sets.setdefault((row.cell.regime, row.cell.budget, row.cell.teacher), row)
    return [
        _sample(row, read_distilled(root / str(row.distilled_folder), verify=False), patches) for row in sets.values()
    ]


def sample_sheet(sample: Sample) -> Image.Image:
    """The picture under its title and caption, for where no text stands beside it."""
    return titled(sample.picture, [sample.title, sample.caption])


def _sample(row: Row, distilled: DistilledSet, patches: int) -> Sample:
    images, cell = images_of(distilled, cache_folder(None)), row.cell
    lines = images.metadata
    budget = format_percent(row.percent if cell.budget is None else cell.budget)
    teacher = ["with teacher"] if cell.teacher else []
    title = ", ".join([cell.regime, budget, *teacher, f"{len(lines):,} patches"])
    shown = _by_class(lines, patches) or _in_order(lines, patches)
    return Sample(title, _caption(distilled, shown), _draw(images.folder, shown))


def _in_order(lines: Sequence[Line], patches: int) -> list[_Shown]:
    some = [lines[number] for number in spread(len(lines), patches)]
    return [_Shown((), some[start : start + COLUMNS]) for start in range(0, len(some), COLUMNS)]


def _by_class(lines: Sequence[Line], patches: int) -> list[_Shown]:
    """A row for each pseudo-class, or some of them, spread evenly; nothing where patches have none."""
    if any(line.get("pseudo_label") is None for line in lines):
        return []
    labels = {int(line["pseudo_label"]) for line in lines}
    columns = min(patches, max(LEAST_MEMBERS, min(COLUMNS, patches // len(labels))))
    shown = []
    for label in (sorted(labels)[number] for number in spread(len(labels), patches // columns)):
        members = [line for line in lines if line["pseudo_label"] == label]
        some = [members[number] for number in spread(len(members), columns)]
        shown.append(_Shown((f"class {label}", f"{len(members):,} patches"), some))
    return shown


def _draw(folder: Path, shown: Sequence[_Shown]) -> Image.Image:
    pixels = [[read_rgb(folder / line["file_name"]) for line in row.lines] for row in shown]
    side = min(min(image.shape[:2]) for images in pixels for image in images)
    return contact_sheet(
        [
            SheetRow(_centres(images, side), [_below(line)[1] for line in row.lines], row.label)
            for row, images in zip(shown, pixels, strict=True)
        ]
    )


def _centres(images: Sequence[Pixels], side: int) -> Tensor:
    """uint8, (B, 3, side, side)."""
    corners = [((image.shape[0] - side) // 2, (image.shape[1] - side) // 2) for image in images]
    squares = [image[top : top + side, left : left + side] for image, (top, left) in zip(images, corners, strict=True)]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def _below(line: Line) -> tuple[str, str]:
    """What stands below a patch: what it is, and the text."""
    if line.get("score") is not None:
        return "score", f"{line['score']:#.3g}".rstrip(".")
    if line.get("pseudo_label") is not None:
        return "pseudo-class", str(line["pseudo_label"])
    if line.get("source") is not None:
        return "photograph", Path(line["source"]).stem
    return "number", str(int(Path(line["file_name"]).stem))


def _caption(distilled: DistilledSet, shown: Sequence[_Shown]) -> str:
    count, total = sum(len(row.lines) for row in shown), len(distilled.metadata)
    much = f"All {total:,} patches" if count == total else f"{count:,} of the {total:,} patches"
    order = "in rows by pseudo-class" if shown[0].label else "from the first of the set to the last"
    cut = "" if len({side for size in distilled.sizes for side in size}) == 1 else ", the centre of each"
    what, _ = _below(shown[0].lines[0])
    return f"{much}, {order}{cut}; below each its {what}. Made by: {_made_by(distilled.provenance)}."


def _made_by(provenance: Mapping[str, Any]) -> str:
    """The rule or the method, with that of the set that the patches come from."""
    rule = (provenance.get("preparation") or {}).get("rule") or provenance.get("method") or "unknown"
    before = provenance.get("made_from")
    return f"{rule} of the outcome of {_made_by(before)}" if before else str(rule)
