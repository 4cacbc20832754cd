"""Rows from the records of stages: every figure against what the files say, added up by hand."""

from __future__ import annotations

import json

import pytest

from comparison.planning.stages import Training
from comparison.results.collect import collect
from comparison.results.rows import Cell, ImageRow
from comparison.running.store import Done, Store

CELL = Cell("random", True, "strong", "edsr", 2.0, 0)
CHAIN = ("select", "teach", "relabel", "train", "test")
TRAINING = Training(CELL, CHAIN[:3], "relabel", "train", "test")
KEYS = {name: f"key of {name}".replace(" ", "-") for name in CHAIN}
BUDGET = {"images": 16, "pixels": 65_536, "bytes": 120_000, "percent": 2.25, "teacher": "edsr"}
FIGURES = {"psnr_y": 28.5, "ssim_y": 0.8, "psnr_y_bicubic": 27.5, "ssim_y_bicubic": 0.75}
RESULTS = {
    "protocol": "Y",
    "sets": {"Set5": {"images": 5, **FIGURES}, "Set14": {"images": 14, **FIGURES, "lpips": 0.3}},
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def store(tmp_path):
    """All stages of one training, done; the set was relabelled by a teacher."""
    made = {
        "select": {"sha256": {}, "seconds": 2.0, "preparation": {"seconds": 7.5}},  # the scores came from the cache
        "relabel": {"sha256": {}, "seconds": 3.0, "preparation": None},
    }
    seconds = {"select": 99.0, "teach": 50.0, "relabel": 99.0, "train": 40.0, "test": 99.0}
    memory = {"select": 700.0, "teach": 900.0, "relabel": 650.0, "train": 800.0, "test": 5000.0}
    for name in CHAIN:
        cost = {"seconds": seconds[name], "peak_rss_mib": memory[name], "peak_gpu_mib": None}
        cost |= {"training_seconds": 30.0, "samples_per_second": 640.0, "optimizer_steps": 600}
        write(tmp_path / "runs" / name / "cost.json", cost)
    for name, provenance in made.items():
        write(tmp_path / "sets" / name / "provenance.json", provenance)
    provenance = {"data_budget": BUDGET, "commit": "0123456789abcdef", "dirty": True, "devices": ["x86_64", "x86_64"]}
    write(tmp_path / "runs" / "train" / "provenance.json", provenance)
    write(tmp_path / "runs" / "teach" / "provenance.json", provenance)
    write(tmp_path / "runs" / "test" / "results.json", RESULTS)
    lines = ["set,name,psnr_y,ssim_y,psnr_rgb,psnr_y_bicubic,ssim_y_bicubic", "Set5,baby.png,30,0.9,1,29,0.85"]
    write(tmp_path / "runs" / "test" / "per_image.csv", "\n".join([*lines, "Set14,lenna.png,31,0.91,1,29.5,0.86"]))
    store = Store(tmp_path)
    for name in CHAIN:
        output = f"sets/{name}" if name in made else f"runs/{name}"
        store.finish(Done(name, KEYS[name], "train", [], f"runs/{name}", output, 1.0, "s"))
    return store


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_one_row_for_each_test_set(store):
    rows, _ = collect([TRAINING], KEYS, store)
    assert [(row.cell, row.set, row.test_images, row.lpips) for row in rows] == [
        (CELL, "Set5", 5, None),
        (CELL, "Set14", 14, 0.3),
    ]
    for row in rows:
        assert (row.psnr_y, row.ssim_y, row.psnr_y_untrained, row.ssim_y_untrained) == tuple(FIGURES.values())
        assert (row.untrained, row.psnr_rgb) == ("bicubic", None)
        assert (row.images, row.pixels, row.bytes, row.percent) == (16, 65_536, 120_000, 2.25)
        assert (row.updates, row.samples_per_second, row.protocol, row.device) == (600, 640.0, "Y", "x86_64")
        assert (row.train_folder, row.test_folder, row.distilled_folder) == ("runs/train", "runs/test", "sets/relabel")


def test_costs_are_those_of_all_stages_before(store):
    row = collect([TRAINING], KEYS, store)[0][0]
    assert row.distillation_seconds == 7.5 + 50.0 + 3.0  # what scoring once took, the teacher's run, relabelling
    assert row.training_seconds == 30.0
    assert row.total_seconds == 90.5
    assert row.peak_memory_mib == 900.0  # without the test
    assert row.peak_gpu_mib is None


def test_scores_that_were_made_by_the_stage_itself_count_once(store):
    change(store.root / "sets" / "select" / "provenance.json", seconds=9.0)
    assert collect([TRAINING], KEYS, store)[0][0].distillation_seconds == 9.0 + 50.0 + 3.0


def test_photographs_cost_nothing_before_training(store):
    full = Training(CELL._replace(regime="full", teacher=False, budget=None), (), None, "train", "test")
    row = collect([full], KEYS, store)[0][0]
    assert (row.distillation_seconds, row.distilled_folder, row.peak_memory_mib) == (0, None, 800.0)


def test_largest_memory_of_a_gpu(store):
    change(store.root / "runs" / "train" / "cost.json", peak_gpu_mib=300.0)
    change(store.root / "runs" / "teach" / "cost.json", peak_gpu_mib=500.0)
    assert collect([TRAINING], KEYS, store)[0][0].peak_gpu_mib == 500.0


@pytest.mark.parametrize(
    ("values", "commit"), [({}, "0123456789+"), ({"dirty": False}, "0123456789"), ({"commit": None}, None)]
)
def test_commit_tells_of_changes(store, values, commit):
    change(store.root / "runs" / "train" / "provenance.json", **values)
    assert collect([TRAINING], KEYS, store)[0][0].commit == commit


def test_images_have_their_own_figures(store):
    _, images = collect([TRAINING], KEYS, store)
    assert images == [
        ImageRow(CELL, "Set5", "baby.png", 30.0, 0.9, 29.0, 0.85),
        ImageRow(CELL, "Set14", "lenna.png", 31.0, 0.91, 29.5, 0.86),
    ]


def test_restoration_has_the_figures_of_the_input(store):
    """At scale 1, tests write `_input` in place of `_bicubic`, and RGB besides."""
    figures = {"psnr_y": 30.5, "ssim_y": 0.9, "psnr_rgb": 29.0, "psnr_y_input": 21.5, "ssim_y_input": 0.5}
    change(store.root / "runs" / "test" / "results.json", sets={"Set14-Haze": {"images": 14, **figures}})
    lines = "set,name,psnr_y,ssim_y,psnr_rgb,psnr_y_input,ssim_y_input\nSet14-Haze,lenna.png,31,0.91,1,21,0.6"
    write(store.root / "runs" / "test" / "per_image.csv", lines)
    (row,), images = collect([TRAINING], KEYS, store)
    assert (row.set, row.untrained, row.psnr_y, row.psnr_rgb) == ("Set14-Haze", "input", 30.5, 29.0)
    assert (row.psnr_y_untrained, row.ssim_y_untrained) == (21.5, 0.5)
    assert images == [ImageRow(CELL, "Set14-Haze", "lenna.png", 31.0, 0.91, 21.0, 0.6)]


@pytest.mark.parametrize("missing", CHAIN)
def test_training_that_is_not_complete_has_no_rows(store, missing):
    (store.root / "done" / f"{KEYS[missing]}.json").unlink()
    assert collect([TRAINING], KEYS, store) == ([], [])
