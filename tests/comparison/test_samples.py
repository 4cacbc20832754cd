"""Contact sheets of distilled sets: pixels against the photographs, order and captions against the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

import comparison.pictures.samples
from callbacks.drawing import CAPTION, GAP
from callbacks.sheets import CELL, LEAST_WIDTH, MARGIN, SheetRow
from comparison.pictures.samples import COLUMNS, LEAST_MEMBERS, sample_sheet, sample_sheets
from comparison.results.rows import Cell
from datamodules.distilled import DistilledPatch, write_distilled
from main import main

CELL_HEIGHT = CELL + CAPTION + 2 * GAP
SIDE = 32


def cell(regime: str, **changed) -> Cell:
    return Cell(regime, False, "strong", "edsr_tiny", 5.0, 0)._replace(**changed)


@pytest.fixture(scope="module")
def chosen(tiny_in, tmp_path_factory) -> Path:
    """Folder of sets chosen through the command line: `plain` by score alone, `classes` two of each pseudo-class."""
    root = tmp_path_factory.mktemp("samples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        network_of = tiny_in(root / "runs")
        at = network_of.index("--model.init_args.network")
        quick = ["--config", "configs/distill/select.yaml", *network_of[:at], *network_of[at + 2 :]]
        quick += ["--data.init_args.filters", "[]", "--data.init_args.criterion", "PSNRBicubic"]
        ways = {
            "plain": ["--data.init_args.budget", "{patches: 20, percent: null}"],
            "classes": [
                "--data.init_args.budget",
                "{ipc: 2, percent: null}",
                "--data.init_args.pseudo_labels.classes",
                "3",
            ],
        }
        for name, way in ways.items():
            main(["predict", *quick, *way, "--distilled.folder", str(root / name)])
    return root


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def photographed(photographs: Path, line: dict) -> np.ndarray:
    """The patch as its line of metadata says that it was cut, enlarged to a cell."""
    top, left = line["top"], line["left"]
    pixels = np.asarray(Image.open(photographs / line["source"]))[top : top + SIDE, left : left + SIDE]
    return pixels.repeat(CELL // SIDE, 0).repeat(CELL // SIDE, 1)


def cells_of(sheet: Image.Image, rows: int, columns: int, left: int = MARGIN) -> list[list[np.ndarray]]:
    pixels = np.asarray(sheet)
    assert len(pixels) == rows * CELL_HEIGHT + MARGIN
    return [
        [
            pixels[row * CELL_HEIGHT : row * CELL_HEIGHT + CELL, at : at + CELL]
            for at in range(left, left + columns * (CELL + GAP), CELL + GAP)
        ]
        for row in range(rows)
    ]


def test_patches_from_the_first_to_the_last(chosen, row, tiny_photographs):
    """Ten of twenty, whose steps of 19 / 9 round to 2 but for one."""
    [sample] = sample_sheets([row(cell("easy"), "Set5", 30.0, distilled_folder="plain")], chosen, patches=10)
    lines = lines_of(chosen / "plain")
    shown = [cell for cells in cells_of(sample.picture, 2, COLUMNS) for cell in cells][:10]
    for position, pixels in zip((0, 2, 4, 6, 8, 11, 13, 15, 17, 19), shown, strict=True):
        np.testing.assert_array_equal(pixels, photographed(tiny_photographs, lines[position]))
    assert sample.title == "easy, 5 %, 20 patches"
    made_by = "PSNRBicubic(colour=grey) -> Random()"
    assert sample.caption == (
        f"10 of the 20 patches, from the first of the set to the last; below each its score. Made by: {made_by}."
    )


def test_a_row_for_each_class(chosen, row, tiny_photographs):
    [sample] = sample_sheets([row(cell("classes"), "Set5", 30.0, distilled_folder="classes")], chosen)
    lines = lines_of(chosen / "classes")
    font = ImageFont.load_default(size=13)
    left = MARGIN + round(max(font.getlength(text) for text in ("class 0", "2 patches")) + MARGIN)
    for label, cells in enumerate(cells_of(sample.picture, 3, 2, left)):
        members = [line for line in lines if line["pseudo_label"] == label]
        for pixels, line in zip(cells, members, strict=True):
            np.testing.assert_array_equal(pixels, photographed(tiny_photographs, line))
    assert sample.caption.startswith("All 6 patches, in rows by pseudo-class; below each its score.")


# --- sets made by hand ----------------------------------------------------------------------------------------------


def grey(level: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def write(folder: Path, metadata: list[dict], **provenance) -> str:
    """A set of grey patches, brighter from each to the next."""
    patches = [DistilledPatch(grey(number), metadata=line) for number, line in enumerate(metadata)]
    write_distilled(folder, patches, 4, provenance)
    return folder.name


@pytest.fixture
def drawn_rows(monkeypatch) -> list[list[SheetRow]]:
    """What every contact sheet was made of."""
    drawn: list[list[SheetRow]] = []
    contact_sheet = comparison.pictures.samples.contact_sheet

    def remember(rows: list[SheetRow]) -> Image.Image:
        drawn.append(rows)
        return contact_sheet(rows)

    monkeypatch.setattr(comparison.pictures.samples, "contact_sheet", remember)
    return drawn


def levels(row: SheetRow) -> list[int]:
    return row.patches[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("line", "caption", "what"),
    [
        ({"score": 0.45109, "source": "a/77062.jpg", "pseudo_label": None}, "0.451", "score"),
        ({"score": 12345.6, "source": "a/77062.jpg"}, "1.23e+04", "score"),
        ({"score": None, "source": "a/77062.jpg"}, "77062", "photograph"),
        ({"seed": 7}, "1", "number"),
    ],
)
def test_what_stands_below_a_patch(line, caption, what, row, tmp_path, drawn_rows):
    folder = write(tmp_path / "set", [line, line])
    [sample] = sample_sheets([row(cell("any"), "Set5", 30.0, distilled_folder=folder)], tmp_path)
    assert drawn_rows[0][0].captions[1] == caption
    assert f"below each its {what}." in sample.caption


def test_classes_without_scores(row, tmp_path, drawn_rows):
    folder = write(tmp_path / "set", [{"pseudo_label": label} for label in (3, 0, 3, 0, 0)])
    [sample] = sample_sheets([row(cell("any"), "Set5", 30.0, distilled_folder=folder)], tmp_path)
    assert [(one.label, levels(one), list(one.captions)) for one in drawn_rows[0]] == [
        (("class 0", "3 patches"), [1, 3, 4], ["0"] * 3),
        (("class 3", "2 patches"), [0, 2], ["3"] * 2),
    ]
    assert "below each its pseudo-class." in sample.caption


def test_some_of_many_classes(row, tmp_path, drawn_rows):
    """20 patches give five rows of LEAST_MEMBERS: classes 0, 8 / 4 = 2, 4, 6, 8 of nine, and members 0, 2, 4, 6."""
    assert LEAST_MEMBERS == 4
    folder = write(tmp_path / "set", [{"pseudo_label": number % 9} for number in range(7 * 9)])
    [sample] = sample_sheets([row(cell("any"), "Set5", 30.0, distilled_folder=folder)], tmp_path, patches=20)
    assert [one.label[0] for one in drawn_rows[0]] == ["class 0", "class 2", "class 4", "class 6", "class 8"]
    assert [levels(one) for one in drawn_rows[0]] == [
        [label + 9 * member for member in (0, 2, 4, 6)] for label in (0, 2, 4, 6, 8)
    ]
    assert sample.caption.startswith("20 of the 63 patches, in rows by pseudo-class;")


def test_patches_of_several_sizes(row, tmp_path, drawn_rows):
    """The smallest side is 16: what is larger is cut to its centre."""
    sizes = [(16, 16), (32, 16), (20, 48)]
    pixels = [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    write_distilled(tmp_path / "set", [DistilledPatch(image) for image in pixels], 4, {})
    [sample] = sample_sheets([row(cell("any"), "Set5", 30.0, distilled_folder="set")], tmp_path)
    centres = [pixels[0], pixels[1][8:24], pixels[2][2:18, 16:32]]
    shown = drawn_rows[0][0].patches.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(shown, np.stack(centres))
    assert ", the centre of each;" in sample.caption


def test_patches_that_are_not_square(row, tmp_path):
    """All of one size, and yet cut."""
    write_distilled(tmp_path / "set", [DistilledPatch(grey(9, 16, 32))] * 2, 4, {})
    [sample] = sample_sheets([row(cell("any"), "Set5", 30.0, distilled_folder="set")], tmp_path)
    assert ", the centre of each;" in sample.caption


def test_one_sheet_for_a_set(row, tmp_path):
    """Of the smallest seed; two test sets, networks and recipes train on the same; sets with a teacher come last."""
    cells = [
        cell("full", budget=None),
        cell("random", seed=1),
        cell("random", teacher=True),
        cell("random"),
        cell("random", network="swinir_light"),
        cell("random", budget=0.68),
    ]
    rows = []
    for number, one in enumerate(cells):
        folder = None if one.regime == "full" else f"set{number}"
        rows += [row(one, name, 30.0, distilled_folder=folder) for name in ("Set5", "Set14")]
        if folder:
            write(tmp_path / folder, [{}] * (number + 1))
    assert [sample.title for sample in sample_sheets(rows, tmp_path)] == [
        "random, 5 %, 4 patches",
        "random, 0.68 %, 6 patches",
        "random, 5 %, with teacher, 3 patches",
    ]


def test_all_photographs_with_a_teacher(row, tmp_path):
    """No planned budget: what the set is of the full one."""
    folder = write(tmp_path / "set", [{}])
    taught = row(cell("full", budget=None, teacher=True), "Set5", 30.0, distilled_folder=folder)
    assert [sample.title for sample in sample_sheets([taught], tmp_path)] == ["full, 100 %, with teacher, 1 patches"]


def test_how_a_set_was_made(row, tmp_path):
    """By the rule, or the method; of a relabelled set, what was relabelled too."""
    chosen = {"method": "selection", "preparation": {"rule": "Gain -> Random()"}}
    folders = [
        write(tmp_path / "rule", [{}], **chosen),
        write(tmp_path / "method", [{}], method="diffusion"),
        write(tmp_path / "unknown", [{}]),
        write(tmp_path / "chain", [{}], method="relabelling", made_from=chosen),
    ]
    rows = [row(cell(name), "Set5", 30.0, distilled_folder=name) for name in folders]
    assert [sample.caption.partition("Made by: ")[2] for sample in sample_sheets(rows, tmp_path)] == [
        "Gain -> Random().",
        "diffusion.",
        "unknown.",
        "relabelling of the outcome of Gain -> Random().",
    ]


def test_a_set_that_is_gone(row, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        sample_sheets([row(cell("any"), "Set5", 30.0, distilled_folder="gone")], tmp_path)


def test_the_sheet_by_itself(row, tmp_path):
    folder = write(tmp_path / "set", [{}] * 3)
    [sample] = sample_sheets([row(cell("any"), "Set5", 30.0, distilled_folder=folder)], tmp_path)
    sheet = np.asarray(sample_sheet(sample))
    assert sheet.shape[1] == LEAST_WIDTH
    header = sheet[: -sample.picture.height]
    np.testing.assert_array_equal(sheet[len(header) :, : sample.picture.width], np.asarray(sample.picture))
    assert (header[:40] < 60).any()  # black title
    assert (header[45:] < 160).any()  # grey caption
