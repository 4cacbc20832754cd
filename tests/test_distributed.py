"""Two processes on the CPU (gloo) against one: the same weights, the same figures, each image once, one run folder.

`ddp_fork` forks this process, so what the run left in its folder is all that comes back.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from callbacks import LastCheckpoint
from main import main

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork"),
    pytest.mark.usefixtures("decoded"),
]

ROOT = Path(__file__).parent.parent
TWO = ["--trainer.strategy", "ddp_fork", "--trainer.devices", "2"]
MODEL = "--model.init_args."


def weights(cli) -> dict[str, torch.Tensor]:
    return load_file(cli.run_dir / "weights.safetensors")


def per_image(cli) -> list[dict[str, str]]:
    with (cli.run_dir / "per_image.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def training(tiny):
    return [
        *tiny,
        *("--data.init_args.augmentation", "strong"),
        *(f"{MODEL}lr_scheduler", "OneCycleLR", f"{MODEL}lr_scheduler.init_args.max_lr", "0.01"),
        *("--trainer.max_steps", "8", "--trainer.val_check_interval", "4"),
    ]


def test_weights_are_those_of_one_process(training, tmp_path):
    two = main(["fit", *training, *TWO, "--data.init_args.batch_size", "2"])
    one = main(["fit", *training, "--data.init_args.batch_size", "4", "--run.experiment", "one"])
    first, second = weights(two), weights(one)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-5
    assert list((tmp_path / "runs" / "default" / "fit").iterdir()) == [two.run_dir]
    assert {path.name for path in two.run_dir.iterdir()} == {path.name for path in one.run_dir.iterdir()}
    cost = json.loads((two.run_dir / "cost.json").read_text())
    assert (cost["devices"], cost["samples"], cost["optimizer_steps"]) == (2, 32, 8)


def test_figures_are_those_of_one_process_and_count_each_image_once(tiny, tiny_photographs, tmp_path):
    """Three images on two processes: one is handed out twice."""
    odd = tmp_path / "odd"
    odd.mkdir()
    for path in sorted(tiny_photographs.iterdir())[:3]:
        shutil.copy(path, odd)
    arguments = [*tiny, "--data.init_args.benchmarks.sets", f"[{odd}]"]
    main(["fit", *arguments, "--trainer.limit_val_batches", "0"])
    two, one = (main(["test", *arguments, "--ckpt_path", "last", *devices]) for devices in (TWO, []))
    first, second = per_image(two), per_image(one)
    assert [row["name"] for row in first] == [row["name"] for row in second] == ["0.png", "1.png", "2.png"]
    results = [json.loads((cli.run_dir / "results.json").read_text())["sets"] for cli in (two, one)]
    (ours,), (theirs,) = (list(sets.values()) for sets in results)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert ours["images"] == 3


def test_each_image_is_upscaled_once(tiny, tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for side in (17, 18, 19):
        Image.effect_noise((side, 16), 60).convert("RGB").save(photographs / f"{side}.png")
    main(["fit", *tiny, "--trainer.limit_val_batches", "0"])
    root = ["--data.init_args.predict_root", str(photographs)]
    cli = main(["predict", *tiny, *TWO, "--ckpt_path", "last", *root])
    lines = [json.loads(line) for line in (cli.run_dir / "predictions" / "metadata.jsonl").read_text().splitlines()]
    assert [(line["file_name"], line["width"]) for line in lines] == [("17.png", 68), ("18.png", 72), ("19.png", 76)]
    assert sum(1 for _ in (cli.run_dir / "predictions").iterdir()) == 4


def test_resume_is_exact(training, tmp_path, monkeypatch):
    """With stochastic depth: each process has random states of its own."""
    depth = (
        "embed_dim: 12, depths: [2], num_heads: [2], window_size: 8, upsampler: pixelshuffledirect, drop_path_rate: 0.5"
    )
    network = [f"{MODEL}network", f"{{architecture: spandrel.architectures.SwinIR.SwinIR, options: {{{depth}}}}}"]
    arguments = [*training, *network, *TWO, "--checkpoint.every_n_steps", "5"]
    save = LastCheckpoint._save

    def save_and_keep(self, trainer):
        save(self, trainer)
        if trainer.is_global_zero:
            shutil.copy(self.path, tmp_path / f"{trainer.global_step}.ckpt")

    monkeypatch.setattr(LastCheckpoint, "_save", save_and_keep)
    uninterrupted = main(["fit", *arguments])
    resumed = main(["fit", *arguments, "--ckpt_path", str(tmp_path / "5.ckpt")])
    first, second = weights(uninterrupted), weights(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_processes_that_start_from_the_shell(tiny, tmp_path):
    """`ddp` starts the whole command again: the second process must find the run folder of the first."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "main.py", "fit", *tiny, "--trainer.strategy", "ddp", "--trainer.devices", "2"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120)
    (run,) = (tmp_path / "runs" / "default" / "fit").iterdir()
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert json.loads((run / "cost.json").read_text())["devices"] == 2
