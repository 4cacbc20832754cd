"""Results: files, logged metrics and table agree."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil

import pytest
from rich.console import Console

from callbacks.results import results_tables, trained_on
from datamodules.budget import DataBudget
from lightning_modules import SuperResolution
from main import main


def test_files_equal_the_logged_metrics(runs):
    folder = runs.test.run_dir
    results = json.loads((folder / "results.json").read_text())
    with (folder / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    values = results["sets"]["tiny"]
    assert values.pop("images") == 4
    for metric, mean in values.items():
        assert mean == pytest.approx(math.fsum(float(row[metric]) for row in rows) / 4, rel=1e-12)
        assert runs.test.trainer.callback_metrics[f"test/tiny/{metric}"].item() == pytest.approx(mean, rel=1e-6)
    assert results["protocol"] == rows[0]["protocol"]
    assert "crop 4" in results["protocol"]


def test_table_shows_sr_against_bicubic():
    sets = {
        "Set5": {"images": 5, "psnr_y": 30.456, "psnr_y_bicubic": 28.432, "ssim_y": 0.86, "ssim_y_bicubic": 0.8113},
        "Set14": {"images": 14, "psnr_y": 26.0, "psnr_y_bicubic": 26.093, "ssim_y": 0.7, "ssim_y_bicubic": 0.7027},
    }
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(results_tables(sets, "test", "PSNR/SSIM on Y"))
    text = console.export_text()
    first, second = (line.split("│")[1:-1] for line in text.splitlines() if "Set" in line)
    assert [cell.strip() for cell in first] == ["Set5", "5", "28.43", "30.46", "+2.02", "0.8113", "0.8600", "+0.0487"]
    assert [cell.strip() for cell in second][4:5] == ["-0.09"]
    assert "PSNR/SSIM on Y" in text


def test_sets_of_one_task_each_are_told_apart_in_80_columns():
    names = [f"Set14-{task}" for task in ("GaussianNoise", "MotionBlur", "RainStreaks", "Haze", "LowLight")]
    metrics = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")
    values = {"images": 14, **{metric + suffix: 20.5 for metric in metrics for suffix in ("", "_input")}}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(results_tables(dict.fromkeys(names, values), "test", "PSNR/SSIM on Y and RGB"))
    text = console.export_text()
    assert [text.count(name) for name in names] == [2] * 5
    assert text.count("restored") == 4


def test_tables_of_restoration_against_the_input():
    """One for Y and one for RGB, which fit 80 columns."""
    y = {"psnr_y": 31.0, "psnr_y_input": 25.5, "ssim_y": 0.9, "ssim_y_input": 0.6}
    values = {"images": 14, **y, "psnr_rgb": 30.0, "psnr_rgb_input": 20.5, "ssim_rgb": 0.8, "ssim_rgb_input": 0.5}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(results_tables({"Set14": values}, "test", "PSNR/SSIM on Y and RGB"))
    text = console.export_text()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "Set14" in line]
    assert rows == [
        ["Set14", "14", "25.50", "31.00", "+5.50", "0.6000", "0.9000", "+0.3000"],
        ["Set14", "14", "20.50", "30.00", "+9.50", "0.5000", "0.8000", "+0.3000"],
    ]
    assert text.count("input") == text.count("restored") == 4
    assert "bicubic" not in text
    assert text.count("PSNR/SSIM on Y and RGB") == 1


def test_says_what_the_weights_were_trained_on(runs, capsys):
    """Also where they are given as weights."""
    for name in ("checkpoints/last.ckpt", "weights.safetensors"):
        path = str(runs.fit.run_dir / name)
        option = "--ckpt_path" if name.endswith("ckpt") else "--model.init_args.init_from"
        folder = main(["test", *runs.arguments, option, path]).run_dir
        budget = runs.fit.datamodule.data_budget
        assert json.loads((folder / "results.json").read_text())["trained_on"] == budget.to_dict()
        assert f"trained on: {budget.describe()}" in " ".join(capsys.readouterr().out.split())


def test_weights_of_unknown_origin(tmp_path):
    """Loose files, and runs of versions that kept no budget."""
    budget = DataBudget(3, 27648, 1000, 100.0, "a.ckpt, weight 0.5")
    for name, record in {"new": {"data_budget": budget.to_dict()}, "old": {"stage": "fit"}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "provenance.json").write_text(json.dumps(record))
    assert trained_on(tmp_path / "new" / "checkpoints" / "best.ckpt") == budget
    assert trained_on(tmp_path / "new" / "weights.safetensors") == budget
    assert trained_on(tmp_path / "old" / "checkpoints" / "best.ckpt") is None
    assert trained_on(tmp_path / "loose.safetensors") is None
    assert trained_on(None) is None


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_damaged_record_is_named_before_anything_is_measured(runs, tmp_path, monkeypatch, command):
    monkeypatch.setattr(
        SuperResolution, f"{command.replace('validate', 'validation')}_step", lambda *_: pytest.fail("!")
    )
    shutil.copy(runs.fit.run_dir / "checkpoints" / "last.ckpt", tmp_path)
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(ValueError, match=r"provenance\.json is damaged"):
        main([command, *runs.arguments, "--ckpt_path", str(tmp_path / "last.ckpt")])


def test_validation_is_reported_too(runs):
    weights = ["--ckpt_path", str(runs.fit.run_dir / "checkpoints/last.ckpt")]
    folder = main(["validate", *runs.arguments, *weights]).run_dir
    assert json.loads((folder / "results.json").read_text())["sets"]["validation"]["images"] == 1
    assert [path.name for path in (folder / "images").iterdir()] == ["validate-validation.png"]


def test_fit_writes_no_results(runs):
    assert not (runs.fit.run_dir / "results.json").exists()
