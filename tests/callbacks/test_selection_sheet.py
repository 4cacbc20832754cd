"""What a selection looks like: pixels against the photographs, counts against plain loops, bars against the scores."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from callbacks.drawing import CAPTION, GAP
from callbacks.score_histogram import ALL, BINS, CHOSEN, KEPT, score_histogram
from callbacks.selection_sheet import MEMBERS, SelectionSheet, pictures, report
from callbacks.sheets import CELL, LEAST_WIDTH, MARGIN, SheetRow, contact_sheet, in_rows
from datamodules.budget import DataBudget
from datamodules.patch_store import Source, open_store
from datamodules.real import RealImages
from datamodules.selection.candidates import Candidates
from lightning_modules import PatchSelection, SuperResolution
from lightning_modules.networks import NetworkSpec

SIZE, CELL_HEIGHT = 16, CELL + CAPTION + 2 * GAP


class BrightnessForTests:
    label = "brightness [levels]"
    complex_when = "low"


@dataclass
class SelectionForTests:
    """The attributes of `datamodules.selection.choose.Selection`."""

    candidates: Candidates
    criterion: BrightnessForTests
    scores: np.ndarray
    kept: np.ndarray
    chosen: np.ndarray
    labels: np.ndarray | None
    class_sizes: np.ndarray | None
    silhouette: float | None
    rule: str
    budget: DataBudget


@pytest.fixture
def selection(tiny_photographs: Path, tmp_path: Path) -> SelectionForTests:
    """40 of the 144 patches of four photographs; filters left 100, in three classes, none chosen of the last."""
    sources = [Source(path.name, path) for path in sorted(tiny_photographs.iterdir())]
    candidates = Candidates(open_store(sources, 2, tmp_path / "cache"), range(4), SIZE, SIZE)
    assert len(candidates) == 144
    scores = candidates.pairs(np.arange(144)).hr.double().mean((1, 2, 3)).numpy().round(3)
    rng = np.random.default_rng(0)
    kept = np.sort(scores.argsort()[22:122])
    chosen = rng.permutation(kept)[:40]
    budget = DataBudget(40, 40 * SIZE**2, 9_999, 27.8)
    labels, sizes = rng.integers(0, 2, 40), np.array([55, 30, 15])
    return SelectionForTests(
        candidates, BrightnessForTests(), scores, kept, chosen, labels, sizes, 0.25, "Brightness -> any", budget
    )


def patch(selection: SelectionForTests, photographs: Path, number: int) -> np.ndarray:
    """A candidate cut from its file, enlarged to a cell."""
    image, top, left = selection.candidates.places[number]
    pixels = np.asarray(Image.open(photographs / f"{image}.png"))[top : top + SIZE, left : left + SIZE]
    return pixels.repeat(CELL // SIZE, 0).repeat(CELL // SIZE, 1)


def cell(sheet: Image.Image, row: int, column: int, rows: int, left: int = MARGIN) -> np.ndarray:
    """Pixels of a cell; rows lie at the bottom of the sheet."""
    top = sheet.height - MARGIN - (rows - row) * CELL_HEIGHT
    left += column * (CELL + GAP)
    return np.asarray(sheet)[top : top + CELL, left : left + CELL]


def test_chosen_patches_in_their_order(selection, tiny_photographs):
    sheet = pictures(selection, 64)["chosen"]
    for place, number in enumerate(selection.chosen):
        shown = cell(sheet, *divmod(place, 8), rows=5)
        np.testing.assert_array_equal(shown, patch(selection, tiny_photographs, number))
    below = np.asarray(sheet)[-MARGIN - CAPTION - GAP : -MARGIN, MARGIN : MARGIN + CELL]
    assert (below < 160).any()  # a caption


def test_many_chosen_patches_are_spread_from_the_first_to_the_last(selection, tiny_photographs):
    sheet = pictures(selection, 14)["chosen"]
    for place in range(14):  # steps of (40 - 1) / (14 - 1) = 3
        shown = cell(sheet, *divmod(place, 8), rows=2)
        np.testing.assert_array_equal(shown, patch(selection, tiny_photographs, selection.chosen[3 * place]))


def test_candidates_to_compare_are_distinct_and_always_the_same(selection):
    sheet, again = (pictures(selection, 14)["candidates"] for _ in range(2))
    assert np.array_equal(np.asarray(sheet), np.asarray(again))
    cells = {cell(sheet, *divmod(place, 8), rows=2).tobytes() for place in range(14)}
    of_all = selection.candidates.pairs(np.arange(144)).hr.permute(0, 2, 3, 1).numpy()
    places = [
        number
        for number, pixels in enumerate(of_all)
        if pixels.repeat(CELL // SIZE, 0).repeat(CELL // SIZE, 1).tobytes() in cells
    ]
    assert len(places) == 14
    assert len({number // 36 for number in places}) >= 3  # photographs


def test_a_row_of_a_class_shows_its_members(selection, tiny_photographs):
    sheet = pictures(selection, 64)["classes"]
    left = sheet.width - MARGIN - MEMBERS * (CELL + GAP) + GAP
    for label in (0, 1):
        members = [number for number, own in zip(selection.chosen, selection.labels, strict=True) if own == label]
        assert len(members) > MEMBERS
        for column, number in ((0, members[0]), (MEMBERS - 1, members[-1])):
            shown = cell(sheet, label, column, rows=3, left=left)
            np.testing.assert_array_equal(shown, patch(selection, tiny_photographs, number))
    assert (cell(sheet, 2, 0, rows=3, left=left) == 255).all()  # none of it was chosen


def test_no_classes_no_class_sheet(selection):
    without = replace(selection, labels=None, class_sizes=None, silhouette=None)
    assert list(pictures(without, 8)) == ["chosen", "candidates", "scores"]
    assert report(without)["classes"] == []


def test_an_undefined_silhouette_is_null(selection):
    text = json.dumps(report(replace(selection, silhouette=float("nan"))), allow_nan=False)
    assert json.loads(text)["silhouette"] is None
    assert json.loads(json.dumps(report(selection)))["silhouette"] == 0.25


def test_report(selection):
    written = report(selection)
    counts = Counter(selection.labels.tolist())
    assert written["classes"] == [{"kept": size, "chosen": counts[c]} for c, size in enumerate([55, 30, 15])]
    assert written["count"] == {"candidates": 144, "kept": 100, "chosen": 40}
    assert written["rule"] == "Brightness -> any"
    assert written["budget"]["text"] == "40 images, 0.01 MP, 0.01 MB, 27.8 % of the full set"
    assert written["budget"]["bytes"] == 9_999
    ordered = sorted(selection.scores.tolist())
    quantiles = written["score_quantiles"]["candidates"]
    assert (quantiles["0"], quantiles["1"]) == (ordered[0], ordered[-1])
    assert quantiles["0.5"] == pytest.approx((ordered[71] + ordered[72]) / 2)
    inside = written["score_quantiles"]["kept"]
    assert (inside["0"], inside["1"]) == (ordered[22], ordered[121])


@pytest.mark.parametrize(("side", "factor"), [(32, 4), (48, 2), (100, 1)])
def test_small_patches_are_enlarged_by_a_whole_factor(side, factor):
    pixels = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(contact_sheet([SheetRow(pixels, ["a"])], ["title"]))
    large = np.kron(pixels[0].permute(1, 2, 0).numpy(), np.ones((factor, factor, 1), dtype=np.uint8))
    top = sheet.shape[0] - MARGIN - 2 * GAP - CAPTION - side * factor
    np.testing.assert_array_equal(sheet[top : top + side * factor, MARGIN : MARGIN + side * factor], large)


def test_large_patches_are_reduced_to_means():
    pixels = torch.randint(0, 256, (1, 3, 384, 384), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sheet = contact_sheet([SheetRow(pixels, ["a"])], ["title"])
    means = pixels[0].double().reshape(3, 128, 3, 128, 3).mean((2, 4)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(cell(sheet, 0, 0, rows=1), means, atol=0.6)  # Pillow adds in fixed point


def test_rows_and_long_titles():
    pixels = torch.zeros(5, 3, CELL, CELL, dtype=torch.uint8)
    rows = in_rows(pixels, list("abcde"), 2)
    assert [list(row.captions) for row in rows] == [["a", "b"], ["c", "d"], ["e"]]
    short, long = contact_sheet(rows, ["title", "rule"]), contact_sheet(rows, ["title", "rule " * 100])
    assert short.width == long.width == LEAST_WIDTH
    assert long.height > short.height
    right = np.asarray(long)[: long.height - MARGIN - 3 * CELL_HEIGHT, -MARGIN:]
    assert (right == 255).all()  # nothing runs into the margin


def columns(picture: np.ndarray, colour: str) -> np.ndarray:
    """Where a colour is seen in the lowest bars."""
    rgb = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    is_grey = (picture == [int(ALL[1:3], 16)] * 3).all(2)
    row = np.flatnonzero(is_grey.sum(1) > 0.3 * picture.shape[1])[0] + 5
    return np.flatnonzero((np.abs(picture[row].astype(int) - rgb) < 20).all(1))


def test_bars_lie_where_the_scores_are():
    scores = np.random.default_rng(0).uniform(0, 1, 50_000)
    kept = scores[(scores > 0.1) & (scores < 0.6)]
    chosen = kept[(kept > 0.2) & (kept < 0.3)]
    picture = np.asarray(score_histogram(scores, kept, chosen, ["rule"], "score"))
    grey, blue, red = (columns(picture, colour) for colour in (ALL, KEPT, CHOSEN))
    first, length = grey[0], grey[-1] - grey[0]
    expected = {"blue": (0.1, 0.6), "red": (0.2, 0.3)}
    for name, found in (("blue", blue), ("red", red)):
        ends = (found[0] - first) / length, (found[-1] - first) / length
        np.testing.assert_allclose(ends, expected[name], atol=1.2 / BINS)


def test_without_filters_nothing_is_shaded():
    scores = np.random.default_rng(0).uniform(0, 1, 5_000)
    picture = np.asarray(score_histogram(scores, scores, scores[:50], ["rule"], "score"))
    assert not (np.abs(picture.astype(int) - [0x56, 0xB4, 0xE9]) < 20).all(2).any()


def test_one_far_score_does_not_squeeze_the_others():
    scores = np.append(np.random.default_rng(0).uniform(0, 1, 5_000), 1e6)
    picture = np.asarray(score_histogram(scores, scores, scores[:50], ["rule"], "score"))
    assert np.ptp(columns(picture, ALL)) > 0.8 * picture.shape[1]


@pytest.mark.parametrize("scores", [np.full(9, 3.0), np.arange(9.0)])
def test_chosen_at_an_end_and_equal_scores(scores):
    picture = np.asarray(score_histogram(scores, scores, scores[-1:], ["rule"], "score"))
    assert picture.shape == (675, 1350, 3)
    assert (np.abs(picture.astype(int) - [0xD5, 0x5E, 0x00]) < 20).all(2).any()


class PictureLogger(CSVLogger):
    """Keeps what it is given to show."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.shown: list[str] = []

    def log_image(self, key: str, images: list, step: int) -> None:
        self.shown.append(key)


@pytest.fixture
def module() -> SuperResolution:
    return SuperResolution(NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1}))


@pytest.fixture
def data(tiny_images: RealImages, selection: SelectionForTests) -> RealImages:
    """A datamodule with the selection."""
    tiny_images.selection = selection
    return tiny_images


NAMES = ["candidates", "chosen", "classes", "scores"]


def test_fit_draws_once(data, module, quick_trainer, tmp_path):
    logger = PictureLogger(tmp_path / "logs")
    quick_trainer(callbacks=[SelectionSheet(patches=8)], logger=logger).fit(module, data)
    folder = tmp_path / "selection"
    assert sorted(path.name for path in folder.iterdir()) == [*(f"{name}.png" for name in NAMES), "selection.json"]
    assert sorted(key for key in logger.shown if key.startswith("selection/")) == [f"selection/{n}" for n in NAMES]
    assert json.loads((folder / "selection.json").read_text()) == report(data.selection)
    assert Image.open(folder / "chosen.png").width == LEAST_WIDTH


def test_predict_draws_when_patches_are_made(data, quick_trainer, tmp_path):
    trainer = quick_trainer(callbacks=[SelectionSheet(patches=8)])
    trainer.predict(PatchSelection(), data, return_predictions=False)
    assert (tmp_path / "selection" / "chosen.png").is_file()


def test_upscaling_draws_nothing(data, module, quick_trainer, tiny_photographs, tmp_path):
    data.predict_root = str(tiny_photographs)
    quick_trainer(callbacks=[SelectionSheet(patches=8)]).predict(module, data, return_predictions=False)
    assert not (tmp_path / "selection").exists()


def test_nothing_is_drawn_when_not_wanted(data, module, quick_trainer, tmp_path):
    quick_trainer(callbacks=[SelectionSheet(patches=0)]).fit(module, data)
    assert not (tmp_path / "selection").exists()


def test_nothing_is_drawn_without_a_selection(tiny_images, module, quick_trainer, tmp_path):
    quick_trainer(callbacks=[SelectionSheet()]).fit(module, tiny_images)
    assert not (tmp_path / "selection").exists()


def test_bad_settings():
    with pytest.raises(ValueError, match=r"selection_sheet: patches -1; expected the number to show"):
        SelectionSheet(patches=-1)
