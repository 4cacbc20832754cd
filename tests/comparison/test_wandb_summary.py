"""The summary run: written offline, and read back from the files that `wandb sync` reads."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comparison.dashboard.summary import log_summary
from comparison.results.statistics import summarise
from datamodules.distilled import DistilledPatch, write_distilled
from tests.wandb_records import OfflineRun


@pytest.fixture
def content(study, tmp_path):
    """Arguments of `log_summary` but the first three: one network and recipe, two plots, one set, a report."""
    rows, images = ([item for item in items if item.cell[2:4] == ("plain", "edsr_tiny")] for items in study)
    plots = {name: tmp_path / f"{name}.png" for name in ("budget", "cost")}
    for number, path in enumerate(plots.values()):
        Image.new("RGB", (30, 20 + number), (0, 90, 200)).save(path)
    rng = np.random.default_rng(0)
    patches = [DistilledPatch(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(3)]
    made_by = {"method": "sharpening", "seed": 2, "source_fingerprint": "f" * 64, "full_pixels": 9600}
    write_distilled(tmp_path / "sets" / "sharp 2%", patches, 4, made_by)
    report = tmp_path / "report.html"
    report.write_text("<!doctype html><title>Plan</title>")
    return {
        "folder": tmp_path / "plan",
        "rows": rows,
        "summaries": summarise(rows, images, "full", "random", bootstrap=20),
        "plots": plots,
        "sets": {"sharp 2%": tmp_path / "sets" / "sharp 2%"},
        "report": report,
    }


@pytest.fixture
def logged(content, capfd):
    written = log_summary("plan", "project", "offline", **content)
    assert capfd.readouterr() == ("", "")
    read = OfflineRun(content["folder"])
    assert read.folder == written
    return read


def read_table(read, name):
    """The lines of a table, from its media file."""
    content = json.loads((read.folder / "files" / read.summary[f"{name}/path"]).read_text())
    return [dict(zip(content["columns"], line, strict=True)) for line in content["data"]]


def test_group_and_job_type(logged):
    run = logged.run
    named = (run.project, run.run_group, run.job_type, run.display_name)
    assert named == ("project", "plan", "summary", "plan summary")


def test_results_have_a_line_for_every_row(logged, content):
    lines = read_table(logged, "results")
    assert len(lines) == len(content["rows"])
    for line, row in zip(lines, content["rows"], strict=True):
        assert line["regime"] == row.cell.regime
        assert line["budget"] == row.cell.budget
        assert line["teacher"] is row.cell.teacher
        assert (line["set"], line["psnr_y"]) == (row.set, row.psnr_y)
        assert line["total_seconds"] == row.distillation_seconds + row.training_seconds


def test_summaries_with_a_teacher_have_a_table_of_their_own(logged, content):
    plain, teacher = read_table(logged, "summary"), read_table(logged, "summary_teacher")
    assert {line["teacher"] for line in plain} == {False}
    assert {line["teacher"] for line in teacher} == {True}
    assert len(plain) + len(teacher) == len(content["summaries"])

    (line,) = (line for line in plain if (line["regime"], line["budget"], line["set"]) == ("sharpening", 5.0, "Set5"))
    assert math.isclose(line["gain_over_random"], 0.2, abs_tol=1e-9)  # by the fixture: 1.8 - 1.6
    assert line["gain_low"] <= line["gain_over_random"] + 1e-9
    assert line["gain_high"] >= line["gain_over_random"] - 1e-9
    assert math.isclose(line["gap_to_full"], 1.8 + 0.1 - 2.0, abs_tol=1e-9)


def test_plots_and_report_are_there(logged, content):
    for name, path in content["plots"].items():
        ours = logged.folder / "files" / logged.summary[f"plots/{name}/path"]
        assert np.array_equal(np.asarray(Image.open(ours)), np.asarray(Image.open(path)))
    assert (logged.folder / "files" / logged.summary["report/path"]).read_text() == content["report"].read_text()


def test_distilled_set_is_an_artifact_and_not_copied(logged, content):
    where = content["sets"]["sharp 2%"]
    artifact = logged.artifacts["plan-sharp-2-"]
    metadata = json.loads(artifact.metadata)
    assert artifact.type == "dataset"
    assert metadata["method"] == "sharpening"
    assert metadata["source_fingerprint"] == "f" * 64
    assert metadata["budget"]["percent"] == 100 * 3 * 64 / 9600
    assert metadata["fingerprint"] == hashlib.sha256((where / "provenance.json").read_bytes()).hexdigest()

    files = {path.relative_to(where).as_posix(): path for path in where.rglob("*") if path.is_file()}
    entries = {entry.path: entry for entry in artifact.manifest.contents}
    assert entries.keys() == files.keys()
    for name, path in files.items():
        assert entries[name].digest == base64.b64encode(hashlib.md5(path.read_bytes()).digest()).decode()  # noqa: S324
        assert entries[name].local_path == str(path)
        assert entries[name].skip_cache


def test_report_is_an_artifact_that_a_new_report_does_not_change(logged, content):
    artifact = logged.artifacts["plan-report"]
    (entry,) = artifact.manifest.contents
    written = content["report"].read_bytes()
    content["report"].write_text("another")
    assert (artifact.type, entry.path) == ("report", "report.html")
    assert Path(entry.local_path).read_bytes() == written


def test_all_that_is_sent_lies_in_the_folder(logged, content):
    """Copies are made for tables and the report; W&B's default is the user's home."""
    places = [entry.local_path for artifact in logged.artifacts.values() for entry in artifact.manifest.contents]
    copies = [place for place in places if not place.startswith(str(content["sets"]["sharp 2%"]))]
    assert len(copies) == 4
    assert all(place.startswith(str(content["folder"] / "wandb" / "staging")) for place in copies)
    assert "WANDB_DATA_DIR" not in os.environ


def test_the_same_results_are_logged_once(logged, content):
    folder = content["folder"]
    assert log_summary("plan", "project", "offline", **content) == logged.folder
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    first, *others = content["rows"]
    changed = {**content, "rows": [replace(first, psnr_y=first.psnr_y + 0.01), *others]}
    assert log_summary("plan", "project", "offline", **changed) not in (None, logged.folder)
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 2


def test_auto_asks_the_environment(content, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert log_summary("plan", "project", "auto", **content) is None
    assert not content["folder"].exists()
