"""Exact resume: a run that was stopped and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from callbacks import LastCheckpoint
from main import main

ROOT = Path(__file__).parent.parent
MODEL = "--model.init_args."
SWIN_IR = {"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 8, "upsampler": "pixelshuffledirect"}
DROPOUT = {**SWIN_IR, "drop_rate": 0.1, "drop_path_rate": 0.5}
ONE_CYCLE = [f"{MODEL}lr_scheduler", "OneCycleLR", f"{MODEL}lr_scheduler.init_args.max_lr", "0.01"]
CHANGEABLE = ("CostTracker", "dirpath", "_path", "best_k_models", "current_score", "epoch_progress")
"""What may differ: times, places, and counters that Lightning moves at another moment when it restarts an epoch."""


def differences(first: Any, second: Any, place: str = "") -> list[str]:
    """Where two checkpoints differ, bit for bit."""
    if any(word in place for word in CHANGEABLE):
        return []
    if isinstance(first, dict) and isinstance(second, dict):
        keys = {*first, *second}
        return [d for key in keys for d in differences(first.get(key), second.get(key), f"{place}/{key}")]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{place}/{i}")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if torch.equal(first, second) else [place]
    return [] if first == second else [place]


def last(cli) -> dict[str, Any]:
    return torch.load(cli.run_dir / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Folder with a copy of every last.ckpt that was written: STEP.ckpt, after a validation STEP-validated.ckpt."""
    folder = tmp_path / "kept"
    folder.mkdir()
    save = LastCheckpoint._save

    def save_and_keep(self, trainer):
        save(self, trainer)
        name = f"{trainer.global_step}{'-validated' * trainer.validating}.ckpt"
        if not (folder / name).exists():
            shutil.copy(self.path, folder / name)

    monkeypatch.setattr(LastCheckpoint, "_save", save_and_keep)
    return folder


# Three batches are an epoch, and a validation comes after every second: 3 is the border of an epoch, 4 a validation, 6
# both. Of three accumulated batches the last is a step of its own.
@pytest.mark.parametrize(
    ("options", "cuts"),
    [
        pytest.param([], ["3", "4", "4-validated", "6-validated"], id="one batch a step"),
        pytest.param(["--trainer.accumulate_grad_batches", "2"], ["1", "2"], id="two batches a step"),
        pytest.param(["--data.init_args.num_workers", "2"], ["4"], id="workers"),
    ],
)
def test_resume_is_exact(tiny, kept, options, cuts):
    """With dropout, stochastic depth, every augmentation, a schedule and averaged weights."""
    arguments = [
        *tiny,
        *(f"{MODEL}network", f"{{architecture: spandrel.architectures.SwinIR.SwinIR, options: {DROPOUT}}}"),
        *("--data.init_args.augmentation", "strong"),
        *("--data.init_args.batch_size", "8"),
        *ONE_CYCLE,
        *("--checkpoint.every_n_steps", "1"),
        *("--trainer.val_check_interval", "2"),
        *("--trainer.max_steps", "8"),
        *options,
    ]
    uninterrupted = last(main(["fit", *arguments]))
    assert uninterrupted["global_step"] == 8
    for cut in cuts:
        resumed = last(main(["fit", *arguments, "--ckpt_path", str(kept / f"{cut}.ckpt")]))
        assert differences(uninterrupted, resumed) == [], cut


def test_resume_from_best_is_exact(tiny):
    arguments = [*tiny, *ONE_CYCLE, "--trainer.val_check_interval", "3", "--trainer.max_steps", "8"]
    first = main(["fit", *arguments])
    resumed = main(["fit", *arguments, "--ckpt_path", str(first.run_dir / "checkpoints" / "best.ckpt")])
    assert differences(last(first), last(resumed)) == []


def test_limit_in_epochs_is_the_same_after_a_resume(tiny, kept):
    """A run of four epochs that stops at the end of the second has two left."""
    arguments = [*tiny, "--data.init_args.batch_size", "8", "--checkpoint.every_n_steps", "1"]
    arguments += ["--trainer.max_steps", "-1", "--trainer.max_epochs", "4", "--trainer.limit_val_batches", "0"]
    uninterrupted = main(["fit", *arguments])
    resumed = main(["fit", *arguments, "--ckpt_path", str(kept / "6.ckpt")])
    assert uninterrupted.trainer.global_step == resumed.trainer.global_step == 12
    assert differences(last(uninterrupted), last(resumed)) == []


def test_resume_after_kill(tiny, tmp_path):
    """A process killed in mid-epoch leaves a last.ckpt that goes on exactly."""
    arguments = [*tiny, "--data.init_args.augmentation", "strong", "--trainer.val_check_interval", "7"]
    arguments += ["--checkpoint.every_n_steps", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "main.py", "fit", *arguments, "--trainer.max_steps", "1000000"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        wait_for(tmp_path / "runs" / "default" / "fit", process)
        process.send_signal(signal.SIGKILL)
    (killed,) = (tmp_path / "runs").glob("default/fit/*/checkpoints/last.ckpt")
    step = torch.load(killed, weights_only=True)["global_step"]
    assert step % 3 == 0
    to_the_end = ["--trainer.max_steps", str(step + 8)]
    resumed = main(["fit", *arguments, *to_the_end, "--ckpt_path", "last"])
    assert resumed.trainer.ckpt_path == str(killed)
    uninterrupted = main(["fit", *arguments, *to_the_end, "--run.experiment", "uninterrupted"])
    first, second = (load_file(cli.run_dir / "weights.safetensors") for cli in (uninterrupted, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def wait_for(folder: Path, process: subprocess.Popen, seconds: float = 90) -> None:
    """Until a checkpoint is there and training has gone on a little."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if list(folder.glob("*/checkpoints/last.ckpt")):
            time.sleep(0.05)
            return
        time.sleep(0.02)
    pytest.fail(
        f"no checkpoint was written: {process.stderr.read().decode() if process.poll() is not None else 'time'}"
    )
