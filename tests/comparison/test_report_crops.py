"""Crops: the choice of images and windows against plain loops, figures against the formula of PSNR, pixels likewise."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks.drawing import CAPTION, GAP
from comparison.pictures.crops import (
    ENLARGED,
    MOST,
    cells_to_show,
    crop_rows,
    crop_sheet,
    largest_differences,
    most_different_window,
)
from comparison.pictures.picture import CropRow
from comparison.results.rows import Cell, ImageRow
from datamodules.benchmarks import Benchmarks
from datamodules.degradation import Chain, GaussianNoise, LowLight, OneOf
from lightning_modules.networks.trained import load_trained
from main import main

SCALE, SIDE = 4, 32
TASKS = (GaussianNoise(), LowLight())
LUMA = np.array([65.481, 128.553, 24.966]) / 255  # BT.601, studio range


def luma(pixels: np.ndarray) -> np.ndarray:
    """Of uint8 (H, W, 3)."""
    return 16 + pixels.astype(float) @ LUMA


def cell(regime: str, **changed) -> Cell:
    return Cell(regime, False, "strong", "edsr_tiny", None if regime == "full" else 5.0, 0)._replace(**changed)


# --- which trainings ------------------------------------------------------------------------------------------------


def test_trainings_that_differ_in_data_alone(study):
    rows, _ = study
    alike = {"recipe": "strong", "network": "edsr_tiny", "seed": 0}
    assert cells_to_show(rows) == [
        Cell("full", False, budget=None, **alike),
        Cell("random", False, budget=0.68, **alike),
        Cell("sharpening", False, budget=0.68, **alike),
        Cell("random", True, budget=0.68, **alike),
        Cell("sharpening", True, budget=0.68, **alike),
    ]


def test_the_first_recipe_where_there_is_no_strong_one(row):
    cells = [cell(regime, recipe=recipe) for recipe in ("b", "a") for regime in ("random", "full")]
    assert cells_to_show([row(one, "Set5", 30.0) for one in cells]) == [cell("full", recipe="b"), cells[0]]


def test_a_failed_training_leaves_the_others(row):
    """Seed 0 of `random` is missing: its seed 1 would differ from the others in more than the data."""
    cells = [cell("full"), cell("random", seed=1), cell("sharpening")]
    assert cells_to_show([row(one, "Set5", 30.0) for one in cells]) == [cells[0], cells[2]]


def test_versions_with_a_teacher_give_way_first(row):
    cells = [cell(f"r{number}", teacher=teacher) for number in range(MOST - 1) for teacher in (False, True)]
    shown = cells_to_show([row(one, "Set5", 30.0) for one in cells])
    assert [one.teacher for one in shown] == [False] * (MOST - 1) + [True]


def test_nothing_to_show():
    assert cells_to_show([]) == []


# --- which images ---------------------------------------------------------------------------------------------------


def taking_turns(ranges: dict[tuple[str, str], float], count: int) -> list[tuple[str, str]]:
    """The same by queues: in each round every set gives its next image, the largest range of the round first."""
    queues = {
        name: sorted((place for place in ranges if place[0] == name), key=lambda place: (-ranges[place], place[1]))
        for name, _ in ranges
    }
    chosen = []
    while any(queues.values()):
        fronts = [queue.pop(0) for queue in queues.values() if queue]
        chosen += sorted(fronts, key=lambda place: (-ranges[place], place))
    return chosen[:count]


@pytest.mark.parametrize("count", [1, 4, 9, 100])
def test_images_that_differ_most(count):
    rng = np.random.default_rng(count)
    cells = [cell("full"), cell("random"), cell("sharpening")]
    places = [(name, f"{number}.png") for name, size in (("A", 2), ("B", 9), ("C", 5)) for number in range(size)]
    values = {place: rng.choice((30.0, 30.5, 31.0), len(cells)).tolist() for place in places}  # many ties
    rows = [
        ImageRow(one, *place, psnr, 0.8, 0.0, 0.7)
        for place in places
        for one, psnr in zip(cells, values[place], strict=True)
    ]
    rows += [ImageRow(cell("random", seed=1), *place, 99.0, 0.8, 0.0, 0.7) for place in places]
    rng.shuffle(rows)  # type: ignore[arg-type]
    ranges = {place: max(psnr) - min(psnr) for place, psnr in values.items()}
    assert largest_differences(rows, cells, count) == taking_turns(ranges, count)


def test_images_that_one_training_was_not_tested_on():
    cells = [cell("full"), cell("random")]
    rows = [ImageRow(one, "A", "both.png", 30.0, 0.8, 0.0, 0.7) for one in cells]
    rows.append(ImageRow(cells[0], "B", "one.png", 30.0, 0.8, 0.0, 0.7))
    assert largest_differences(rows, cells, 4) == [("A", "both.png")]


def test_identical_images_have_no_difference():
    """Both infinite: their difference is not a number, and would break the order."""
    cells = [cell("full"), cell("random")]
    rows = [
        ImageRow(one, "A", name, psnr, 1.0, 0.0, 0.7)
        for name, values in (("exact.png", (np.inf, np.inf)), ("near.png", (30.0, 30.1)))
        for one, psnr in zip(cells, values, strict=True)
    ]
    assert largest_differences(rows, cells, 2) == [("A", "near.png"), ("A", "exact.png")]


# --- which window ---------------------------------------------------------------------------------------------------


def best_window(sr: list[np.ndarray], hr: np.ndarray, side: int, scale: int) -> tuple[int, int, int, int]:
    """All windows on the LR grid, one by one."""
    errors = [(luma(image) - luma(hr)) ** 2 for image in sr]
    spread = np.max(errors, 0) - np.min(errors, 0)
    height, width = (min(side, length) // scale * scale for length in hr.shape[:2])
    sums = {
        (top, left, height, width): spread[top : top + height, left : left + width].sum()
        for top in range(0, hr.shape[0] - height + 1, scale)
        for left in range(0, hr.shape[1] - width + 1, scale)
    }
    return max(sums, key=lambda window: sums[window])


@pytest.mark.parametrize(("height", "width", "side", "scale"), [(24, 36, 12, 3), (40, 32, 18, 4), (12, 40, 16, 2)])
def test_window_with_the_largest_difference(height, width, side, scale):
    rng = np.random.default_rng(height)
    hr = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    sr = [rng.integers(0, 256, hr.shape, dtype=np.uint8) for _ in range(3)]
    as_tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in (*sr, hr)]
    found = most_different_window(torch.stack(as_tensors[:-1]), as_tensors[-1], side, scale)
    assert found == best_window(sr, hr, side, scale)


def test_a_difference_in_quality_and_not_in_pixels():
    """Left, two are equally wrong in different ways; right, one is right and one slightly wrong."""
    hr = torch.full((3, 8, 16), 128, dtype=torch.uint8)
    darker, brighter = hr.clone(), hr.clone()
    darker[..., :8] -= 100
    brighter[..., :8] += 100
    darker[..., 8:] += 5
    assert most_different_window(torch.stack([darker, brighter]), hr, 8, 4) == (0, 8, 8, 8)


# --- trained networks -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tiny_in, tmp_path_factory) -> dict[str, SimpleNamespace]:
    """Two networks, trained and tested through the command line."""
    root = tmp_path_factory.mktemp("crops")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        return {regime: _trained(tiny_in(root), seed) for seed, regime in enumerate(("full", "random"))}


@pytest.fixture(scope="module")
def restoring(tiny_in, tmp_path_factory) -> dict[str, SimpleNamespace]:
    """The same at scale 1, for two tasks in one."""
    root = tmp_path_factory.mktemp("restoring")
    names = ", ".join(f"{{class_path: {type(task).__name__}}}" for task in TASKS)
    one_of = f"[{{class_path: OneOf, init_args: {{choices: [{names}]}}}}]"
    data = ("--data.init_args.scale", "1", "--data.init_args.degradation", one_of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        return {regime: _trained([*tiny_in(root), *data], seed) for seed, regime in enumerate(("full", "random"))}


def _trained(tiny: list[str], seed: int) -> SimpleNamespace:
    fitted = main(["fit", *tiny, "--seed_everything", str(seed)])
    checkpoint = fitted.run_dir / "checkpoints" / "last.ckpt"
    tested = main(["test", *tiny, "--ckpt_path", str(checkpoint)])
    with (tested.run_dir / "per_image.csv").open(newline="") as lines:
        return SimpleNamespace(folder=fitted.run_dir, images=list(csv.DictReader(lines)))


@pytest.fixture
def study_of_two(runs, row, tiny_photographs) -> SimpleNamespace:
    return _study(runs, row, tiny_photographs, "bicubic")


def _study(runs, row, tiny_photographs: Path, untrained: str) -> SimpleNamespace:
    root = runs["full"].folder.parent
    rows = [row(cell(name), "Set5", 30.0, train_folder=run.folder.name) for name, run in runs.items()]
    figures = ("psnr_y", "ssim_y", f"psnr_y_{untrained}", f"ssim_y_{untrained}")
    per_image = [
        ImageRow(cell(name), line["set"], line["name"], *(float(line[key]) for key in figures))
        for name, run in runs.items()
        for line in run.images
    ]
    return SimpleNamespace(
        rows=[replace(one, set="tiny") for one in rows],
        per_image=per_image,
        root=root,
        benchmarks=Benchmarks(["tiny"], root=str(tiny_photographs.parent)),
    )


@pytest.fixture
def drawn(study_of_two) -> list[CropRow]:
    one = study_of_two
    return crop_rows(one.rows, one.per_image, one.root, one.benchmarks, SCALE, count=2, side=SIDE)


def reconstructions(study: SimpleNamespace, name: str) -> dict[str, np.ndarray]:
    """LR, HR and what each network makes of the LR, rounded, uint8 (H, W, 3)."""
    images = study.benchmarks.open(SCALE)[0]
    lr, hr = images.read(images.names.index(name))
    made = {"LR": lr, "HR": hr}
    for row in study.rows:
        network = load_trained(study.root / row.train_folder / "checkpoints" / "last.ckpt").network
        sr = network(torch.from_numpy(lr.copy()).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()
        made[row.cell.regime] = np.rint(sr.clip(0, 1) * np.float32(255)).astype(np.uint8)
    return made


def test_rows_show_the_chosen_images(study_of_two, drawn):
    images = {image.image for image in study_of_two.per_image}
    psnr = {(image.cell.regime, image.image): image.psnr_y for image in study_of_two.per_image}
    apart = {name: abs(psnr["full", name] - psnr["random", name]) for name in images}
    largest = sorted(images, key=lambda name: -apart[name])[:2]
    for name, row in zip(largest, drawn, strict=True):
        assert row.caption.startswith(f"tiny, {name}: up to {apart[name]:.2f} dB apart; {SIDE} x {SIDE} pixels")
        assert [panel.label for panel in row.panels] == ["LR", "bicubic", "full", "random", "HR"]
        assert row.caption.endswith("edsr_tiny, strong, seed 0, distilled sets of 5 %")


def test_panels_are_cut_where_quality_differs_most(study_of_two, drawn):
    for row in drawn:
        made = reconstructions(study_of_two, row.caption.split(": ")[0].removeprefix("tiny, "))
        top, left, height, width = best_window([made["full"], made["random"]], made["HR"], SIDE, SCALE)
        assert f"from row {top}, column {left};" in row.caption
        made["LR"] = made["LR"].repeat(SCALE, 0).repeat(SCALE, 1)
        shown = {panel.label: np.asarray(panel.picture) for panel in row.panels}
        for label, pixels in made.items():
            np.testing.assert_array_equal(shown[label], pixels[top : top + height, left : left + width])


def test_details_are_the_psnr_of_what_is_shown(study_of_two, drawn):
    for row in drawn:
        made = reconstructions(study_of_two, row.caption.split(": ")[0].removeprefix("tiny, "))
        inner = slice(SCALE, -SCALE)
        for panel in row.panels[2:-1]:
            error = luma(made[panel.label])[inner, inner] - luma(made["HR"])[inner, inner]
            assert panel.detail == f"{10 * np.log10(255**2 / np.mean(error**2)):.2f} dB"
        assert [panel.detail for panel in row.panels if panel.label in ("LR", "HR")] == ["", ""]


def test_bicubic_beside_its_figure(study_of_two, drawn):
    """Pillow's kernel is the same, but for the border; its figure is the one of the test."""
    psnr = {image.image: image.psnr_y_untrained for image in study_of_two.per_image}
    for row in drawn:
        name = row.caption.split(": ")[0].removeprefix("tiny, ")
        made, panel = reconstructions(study_of_two, name), row.panels[1]
        enlarged = np.asarray(Image.fromarray(made["LR"]).resize((96, 96), Image.Resampling.BICUBIC)).astype(int)
        top, left, height, width = best_window([made["full"], made["random"]], made["HR"], SIDE, SCALE)
        difference = np.asarray(panel.picture) - enlarged[top : top + height, left : left + width]
        assert np.median(np.abs(difference)) <= 1
        assert panel.detail == f"{psnr[name]:.2f} dB"


def test_restored_images_stand_between_their_input_and_the_truth(restoring, row, tiny_photographs):
    """Each task has a test set of its own, whose images are degraded by that task alone, as in the test."""
    study = _study(restoring, row, tiny_photographs, "input")
    chain = Chain([OneOf(list(TASKS))])
    drawn = crop_rows(study.rows, study.per_image, study.root, study.benchmarks, 1, chain, count=2, side=SIDE)
    assert {one.caption.split(",")[0] for one in drawn} == {f"tiny-{type(task).__name__}" for task in TASKS}
    psnr = {(image.set, image.image, image.cell.regime): image.psnr_y for image in study.per_image}
    for one in drawn:
        name, image, top, left = re.match(r"(.*?), (.*?): .* from row (\d+), column (\d+);", one.caption).groups()
        window = (slice(int(top), int(top) + SIDE), slice(int(left), int(left) + SIDE))
        (degraded,) = (images for images in study.benchmarks.open(1, chain) if images.name == name)
        lr, hr = degraded.read(degraded.names.index(image))
        assert [panel.label for panel in one.panels] == ["input", "full", "random", "truth"]
        np.testing.assert_array_equal(np.asarray(one.panels[0].picture), lr[window])
        np.testing.assert_array_equal(np.asarray(one.panels[-1].picture), hr[window])
        of_input = 10 * np.log10(255**2 / np.mean((luma(lr) - luma(hr)) ** 2))
        expected = [of_input, psnr[name, image, "full"], psnr[name, image, "random"]]
        assert [panel.detail for panel in one.panels] == [*(f"{value:.2f} dB" for value in expected), ""]


def test_with_a_teacher(study_of_two, row):
    """Marked, and after the others."""
    one = study_of_two
    taught = cell("random", teacher=True)
    rows = [row(taught, "Set5", 30.0, train_folder=one.rows[0].train_folder), *one.rows]
    images = [*one.per_image, *(replace(image, cell=taught) for image in one.per_image[:4])]
    drawn = crop_rows(rows, images, one.root, one.benchmarks, SCALE, count=1, side=SIDE)
    assert [panel.label for panel in drawn[0].panels[2:-1]] == ["full", "random", "random, with teacher"]


def test_one_training_differs_from_nothing(study_of_two):
    one = study_of_two
    assert crop_rows(one.rows[:1], one.per_image, one.root, one.benchmarks, SCALE) == []


def test_an_image_that_is_gone(study_of_two):
    one = study_of_two
    gone = [replace(image, image="gone.png") for image in one.per_image]
    with pytest.raises(ValueError, match=r"test set tiny holds no image gone\.png, .* SRDISTILL_DATA"):
        crop_rows(one.rows, gone, one.root, one.benchmarks, SCALE)


def test_a_checkpoint_that_is_gone(study_of_two, tmp_path: Path):
    one = study_of_two
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        crop_rows(one.rows, one.per_image, tmp_path, one.benchmarks, SCALE)


def test_sheet(drawn):
    """Below two lines of labels and a caption, every pixel as a square."""
    sheet = np.asarray(crop_sheet(drawn))
    cell_side, header = SIDE * ENLARGED, 3 * CAPTION
    for number, row in enumerate(drawn):
        top = number * (header + cell_side + GAP) + header
        for column, panel in enumerate(row.panels):
            left = column * (cell_side + GAP)
            expected = np.asarray(panel.picture).repeat(ENLARGED, 0).repeat(ENLARGED, 1)
            np.testing.assert_array_equal(sheet[top : top + cell_side, left : left + cell_side], expected)
            label = sheet[top - 2 * CAPTION : top - CAPTION, left : left + cell_side]
            detail = sheet[top - CAPTION : top, left : left + cell_side]
            assert (label < 160).any()
            assert (detail < 160).any() == bool(panel.detail)
