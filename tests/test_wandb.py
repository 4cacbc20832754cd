"""W&B: a real offline run folder is written, and read back from its own file format."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cli.loggers import wandb_mode
from cli.run_folders import CONFIG_KEYS
from main import main
from tests.wandb_records import OfflineRun

LABELS = {"regime": "random", "budget": 0.68, "network": "edsr", "teacher": False, "seed": 1}
TYPES = [str, float, str, bool, int]


@pytest.fixture
def offline(tiny, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    options = ["--run.wandb", "offline", "--run.experiment", "study", "--trainer.max_steps", "4"]
    return main(["fit", *tiny, *options, "--trainer.val_check_interval", "2"]).run_dir


def test_offline_run_can_be_read_back(offline):
    read = OfflineRun(offline)
    run, config = read.run, read.config
    assert (run.project, run.run_group, run.job_type, run.display_name) == ("srdistill", "study", "fit", offline.name)
    assert config["model"]["init_args"]["network"]["options"] == {"n_feats": 4, "n_resblocks": 1}
    assert config["data"]["init_args"]["patch_size"] == 32

    losses = {row["trainer/global_step"]: row["train/loss"] for row in read.history if "train/loss" in row}
    assert list(losses) == [0, 1, 2, 3]
    assert all(loss > 0 for loss in losses.values())
    assert len([row for row in read.history if "val/psnr_y" in row]) == 2

    names = [name for row in read.history for name in row.get("images/validation/filenames", [])]
    drawn = [offline / "images" / f"step{step:08d}-validation.png" for step in (2, 4)]
    for name, ours in zip(names, drawn, strict=True):
        assert np.array_equal(np.asarray(Image.open(read.folder / "files" / name)), np.asarray(Image.open(ours)))


def test_stages_of_a_comparison_can_be_grouped_and_compared(tiny, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    labels = ["--run.labels", "{regime: random, budget: 0.68, network: edsr, teacher: false, seed: 1}"]
    where = ["--run.experiment", "random-train-s1", "--run.group", "plan", *labels]
    fit = main(["fit", *tiny, *where, "--run.job_type", "train"]).run_dir
    test = main(["test", *tiny, *where, "--ckpt_path", "last"]).run_dir
    assert "wandb" not in capsys.readouterr().err  # WandbLogger leaves WANDB_MODE=dryrun behind

    for folder, job_type in ((fit, "train"), (test, "test")):
        read = OfflineRun(folder)
        run = read.run
        assert (run.run_group, run.job_type, run.display_name) == ("plan", job_type, "random-train-s1")
        assert {key: read.config[key] for key in LABELS} == LABELS
        assert [type(read.config[key]) for key in LABELS] == TYPES
        assert read.config["model"]["init_args"]["network"]["architecture"] == "EDSR"
        cost = json.loads((folder / "cost.json").read_text())
        numbers = {f"cost/{key}": value for key, value in cost.items() if value is not None}
        assert {key: value for key, value in read.summary.items() if key.startswith("cost/")} == numbers
        trained_on = json.loads((fit / "provenance.json").read_text())["data_budget"]
        assert {
            key: read.summary[f"data/{key}"] for key in ("images", "bytes", "percent")
        }.items() <= trained_on.items()

    measured = json.loads((test / "results.json").read_text())["sets"]["tiny"]["psnr_y"]
    assert OfflineRun(test).summary["test/tiny/psnr_y"] == pytest.approx(measured, rel=1e-6)
    with (fit / "metrics.csv").open() as lines:
        assert not [column for column in next(csv.reader(lines)) if column.startswith(("cost", "data", "regime"))]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_summary_keeps_the_best_validation(tiny, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", "offline")
    read = OfflineRun(main(["fit", *tiny, "--checkpoint.mode", mode, "--trainer.max_steps", "4"]).run_dir)
    figures = [row["val/psnr_y"] for row in read.history if "val/psnr_y" in row]
    assert len(set(figures)) == 4
    assert read.summary["val/psnr_y"] == {mode: max(figures) if mode == "max" else min(figures), "last": figures[-1]}


def test_a_run_may_monitor_nothing(tiny, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    fit = main(["fit", *tiny, "--run.wandb", "offline", "--checkpoint.monitor", "null"]).run_dir
    assert OfflineRun(fit).run.run_group
    assert [path.name for path in (fit / "checkpoints").iterdir()] == ["last.ckpt"]


def test_labels_survive_config_and_checkpoint(tiny):
    words = [word for key, value in LABELS.items() for word in (f"--run.labels.{key}", str(value).lower())]
    folder = main(["fit", *tiny, *words]).run_dir
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["run"]["labels"] == LABELS
    assert [type(value) for value in config["run"]["labels"].values()] == TYPES
    assert config.keys() | {"ckpt_path"} == CONFIG_KEYS

    again = main(["fit", "--config", str(folder / "config.yaml")]).run_dir
    assert yaml.safe_load((again / "config.yaml").read_text())["run"]["labels"] == LABELS
    checkpoint = torch.load(again / "checkpoints" / "last.ckpt", weights_only=True)
    assert "labels" not in str(checkpoint["hyper_parameters"])


def test_label_with_the_name_of_a_setting_is_refused(tiny):
    with pytest.raises(ValueError, match=r"^run.labels has model, which .*; choose another name, such as model_label$"):
        main(["fit", *tiny, "--run.labels", "{regime: random, model: EDSR}"])


@pytest.mark.parametrize(
    ("asked", "variable", "mode"),
    [("auto", "dryrun", "offline"), ("auto", "online", "online"), ("offline", "disabled", "offline")],
)
def test_mode_asks_the_environment_only_when_told_to(monkeypatch, asked, variable, mode):
    monkeypatch.setenv("WANDB_MODE", variable)
    assert wandb_mode(asked) == mode


def test_unknown_mode_of_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ValueError, match="WANDB_MODE is 'ofline'; expected online, offline"):
        wandb_mode("auto")


def test_disabled(tiny, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    cli = main(["fit", *tiny, "--run.wandb", "disabled", "--trainer.limit_val_batches", "0"])
    assert not (cli.run_dir / "wandb").exists()


def test_every_run_of_a_process_is_its_own(tiny, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    quick = [*tiny, "--trainer.limit_val_batches", "0"]
    folders = [main(["fit", *quick, "--run.name", name]).run_dir / "wandb" for name in ("first", "second")]
    assert [len(list(folder.glob("offline-run-*"))) for folder in folders] == [1, 1]
