"""Run folders: one per run, never used twice, and found again by experiment."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_only

RECORDS = {"config.yaml", "provenance.json", "hparams.yaml", "wandb"}
"""What a run writes before its first step."""

CONFIG_KEYS = {
    *("seed_everything", "ckpt_path", "run", "model", "data", "checkpoint", "ema", "curriculum", "image_grid"),
    *("selection_sheet", "sample_grid", "distilled", "sample_report", "trainer"),
}
"""Top level of every configuration; in W&B's config, labels stand beside it."""

Label = bool | int | float | str | None
"""Strings last: the parser takes the first type that fits, so that numbers on the command line are numbers."""


@dataclass
class RunSettings:
    """Where a run writes: ROOT/EXPERIMENT/STAGE/NAME.

    Attributes:
        experiment: name for runs that belong together; `--ckpt_path last` looks here.
        name: folder of this run; null is the time. An existing run is never overwritten.
        root: folder of all runs.
        wandb: Weights & Biases: `auto` writes an offline run where wandb is installed (WANDB_MODE decides otherwise),
            `offline`, `online`, or `disabled`.
        project: name of the W&B project.
        group: W&B's group; null is the experiment.
        job_type: W&B's job type; null is the command: fit, test ...
        labels: added to W&B's config at the top level, to group and filter runs by, such as
            `{regime: random, budget: 0.68}`; the run is then displayed by its experiment's name.

    Raises:
        ValueError: when a label has the name of a top-level key of the configuration.
    """

    experiment: str = "default"
    name: str | None = None
    root: str = "runs"
    wandb: Literal["auto", "offline", "online", "disabled"] = "auto"
    project: str = "srdistill"
    group: str | None = None
    job_type: str | None = None
    labels: dict[str, Label] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken = sorted(self.labels.keys() & CONFIG_KEYS)
        if taken:
            raise ValueError(
                f"run.labels has {', '.join(taken)}, which the configuration itself has at its top level; "
                f"choose another name, such as {taken[0]}_label"
            )

    @property
    def folder(self) -> Path:
        """Of the experiment."""
        return Path(self.root).expanduser() / self.experiment


def reserve(settings: RunSettings, stage: str) -> Path:
    """Makes the folder of a new run (on the first process; the others learn it from there).

    Raises:
        ValueError: when the given name is no folder name.
        FileExistsError: when a run of the given name exists.
    """
    parent = settings.folder / stage
    if settings.name is not None:
        if settings.name in ("", "..") or Path(settings.name).name != settings.name:
            raise ValueError(f"run.name is {settings.name!r}; expected the name of a folder, not a path")
        return _make(parent / settings.name)
    stem = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    attempt = 0
    while True:
        path = parent / (f"{stem}-{attempt}" if attempt else stem)
        try:
            return _make(path)
        except FileExistsError:
            attempt += 1


def _make(path: Path) -> Path:
    if _global_rank() == 0:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise FileExistsError(
                f"the run {path} exists and is not overwritten: give another --run.name, or leave it out; "
                f"to continue it, add --ckpt_path {path / 'checkpoints' / 'last.ckpt'} under another name"
            ) from None
    return path


def _global_rank() -> int:
    return int(getattr(rank_zero_only, "rank", None) or 0)


def release(path: Path) -> None:
    """Removes the folder of a run that failed before it began: one that holds nothing but records of the start."""
    if _global_rank() == 0 and path.is_dir() and {file.name for file in path.iterdir()} <= RECORDS:
        shutil.rmtree(path)


def find_checkpoint(given: str, settings: RunSettings) -> str:
    """The checkpoint that `--ckpt_path` means.

    Args:
        given: `last` or `best` of the experiment's newest fit that has written a checkpoint, or a file.
        settings: say which experiment.

    Raises:
        FileNotFoundError: when there is none; Lightning would train from scratch, or score random weights.
        ValueError: when the file holds weights alone.
    """
    if given not in ("last", "best"):
        if not Path(given).expanduser().is_file():
            raise FileNotFoundError(f"--ckpt_path {given}: no such file; give an existing checkpoint, `last` or `best`")
        if Path(given).suffix == ".safetensors":
            raise ValueError(f"--ckpt_path {given}: weights, no checkpoint; give --model.init_args.init_from {given}")
        return str(Path(given).expanduser())
    written = sorted((settings.folder / "fit").glob("*/checkpoints/*.ckpt"), key=os.path.getmtime)
    if not written:
        raise FileNotFoundError(
            f"--ckpt_path {given}: experiment {settings.experiment!r} has no checkpoint in {settings.folder / 'fit'}; "
            "run fit first, name the experiment with --run.experiment, or give a file"
        )
    newest = written[-1].with_name(f"{given}.ckpt")
    if not newest.is_file():
        raise FileNotFoundError(
            f"--ckpt_path {given}: the newest run has only {written[-1]}; give that file, or another one"
        )
    return str(newest)
