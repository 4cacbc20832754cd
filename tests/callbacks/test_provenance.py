"""Provenance: what is needed to repeat a run, and that it does repeat it."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata

import torch
import yaml
from safetensors.torch import load_file

from datamodules.software import git_state
from main import main


def record(cli) -> dict:
    return json.loads((cli.run_dir / "provenance.json").read_text())


def test_content(runs):
    fit = record(runs.fit)
    assert (fit["schema"], fit["stage"], fit["seed"], fit["precision"]) == (1, "fit", 0, "32-true")
    assert fit["data_fingerprint"] == runs.fit.datamodule.fingerprint
    assert fit["data_budget"] == runs.fit.datamodule.data_budget.to_dict()
    assert fit["packages"]["torch"] == metadata.version("torch")
    assert fit["checkpoint"] is None
    assert {"python", "platform", "devices", "commit", "dirty", "command"} <= fit.keys()


def test_a_test_names_its_checkpoint(runs):
    test = record(runs.test)
    assert test["stage"] == "test"
    assert test["data_budget"] is None  # it trained on nothing
    assert test["checkpoint"] == str(runs.fit.run_dir / "checkpoints" / "last.ckpt")


def test_config_repeats_the_run(runs, tmp_path):
    config = runs.fit.run_dir / "config.yaml"
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["network"]["options"]["n_feats"] == 4
    again = main(["fit", "--config", str(config), "--run.root", str(tmp_path)])
    first, second = (load_file(cli.run_dir / "weights.safetensors") for cli in (runs.fit, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_config_of_a_schedule_can_be_read_again(tiny):
    cycle = ["--model.init_args.lr_scheduler", "OneCycleLR", "--model.init_args.lr_scheduler.init_args.max_lr", "0.01"]
    first = main(["fit", *tiny, *cycle, "--trainer.limit_val_batches", "0"])
    again = main(["fit", "--config", str(first.run_dir / "config.yaml")])
    assert again.trainer.lr_scheduler_configs[0].scheduler.total_steps == 2


def test_commit_and_changes(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True, text=True
        )

    assert git_state(tmp_path / "nowhere") == {"commit": None, "dirty": None}
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD").stdout.strip(), "dirty": False}
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path)["dirty"] is True
