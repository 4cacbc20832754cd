"""A comparison that takes seconds, and what is to be known of its folder."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from safetensors.torch import load_file

from main import main

NETWORK = {"architecture": "EDSR", "options": {"n_feats": 4, "n_resblocks": 1}}


def write_plan(folder: Path, photographs: Path, **changed: Any) -> Path:
    """A plan of three regimes at 20 %, 5 patches, with and without a teacher: 14 stages.

    Args:
        folder: to write to.
        photographs: to train on, and the test set.
        changed: keys of the plan, or of its `set` where they have dots.
    """
    (folder / "net.yaml").write_text(
        yaml.safe_dump({"model": {"class_path": "SuperResolution", "init_args": {"network": NETWORK}}})
    )
    settings: dict[str, Any] = {
        "data.init_args.root": str(photographs),
        "data.init_args.benchmarks.root": str(photographs.parent),
        "data.init_args.benchmarks.sets": [photographs.name],
        "data.init_args.patch_size": 32,
        "data.init_args.batch_size": 2,
        "trainer.max_steps": 4,
        "trainer.val_check_interval": 2,
        "trainer.log_every_n_steps": 1,
        "trainer.accelerator": "cpu",
        "trainer.enable_model_summary": False,
        "trainer.num_sanity_val_steps": 0,
    }
    plan = {
        "name": "study",
        "regimes": {"full": {}, "random": {}, "sharpening": {}},
        "budgets": [20],
        "networks": [str(folder / "net.yaml")],
        "recipes": {"plain": {"set": {"data.init_args.augmentation": "plain"}}},
        "relabelling": [False, True],
        "crops": 1,
        "set": settings | {key: value for key, value in changed.items() if "." in key},
        **{key: value for key, value in changed.items() if "." not in key},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    return folder / "plan.yaml"


def compare(plan: Path, root: Path, *options: str) -> None:
    """Runs the command, two stages at a time."""
    main(["compare", "--config", str(plan), "--root", str(root), "--jobs", "2", *options])


def attempts(root: Path) -> set[str]:
    """Every run of a stage: STAGE/COMMAND/KEY."""
    return {path.relative_to(root / "stages").as_posix() for path in (root / "stages").glob("*/*/*")}


def stages_of(runs: set[str]) -> list[str]:
    """Names of the stages of runs."""
    return sorted(run.split("/")[0] for run in runs)


def still_running(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of the processes that have not ended when so much time is over."""
    end = time.monotonic() + seconds
    left = list(processes)
    while left and time.monotonic() < end:
        left = [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.05)
    return left


def read_csv(path: Path) -> list[dict[str, str]]:
    """Lines of a file with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_weights(*runs: Path) -> None:
    """Bit for bit; the order of the files' headers is left to chance."""
    first, second = (load_file(run / "weights.safetensors") for run in runs)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
