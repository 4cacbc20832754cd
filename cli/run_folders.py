"""Run folders: one per run, never used twice, and found again by experiment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_only


@dataclass
class RunSettings:
    """Where a run writes: ROOT/EXPERIMENT/STAGE/NAME.

    Attributes:
        experiment: runs that belong together; `--ckpt_path last` looks here. W&B's group.
        name: of the run; null is the time. An existing run is never overwritten.
        root: folder of all runs.
        wandb: Weights & Biases: `auto` writes an offline run where wandb is installed (WANDB_MODE decides otherwise),
            `offline`, `online`, or `disabled`.
        project: of W&B.
    """

    experiment: str = "default"
    name: str | None = None
    root: str = "runs"
    wandb: Literal["auto", "offline", "online", "disabled"] = "auto"
    project: str = "srdistill"

    @property
    def folder(self) -> Path:
        """Of the experiment."""
        return Path(self.root).expanduser() / self.experiment


def reserve(settings: RunSettings, stage: str) -> Path:
    """Makes the folder of a new run (on the first process; the others learn it from there).

    Raises:
        FileExistsError: when a run of the given name exists.
    """
    parent = settings.folder / stage
    if settings.name is not None:
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
    """Removes a run's folder if nothing was written into it (a run that failed before it began)."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def find_checkpoint(given: str, settings: RunSettings) -> str:
    """The checkpoint that `--ckpt_path` means.

    Args:
        given: `last` or `best` of the experiment's newest fit that has one, or a file.
        settings: say which experiment.

    Raises:
        FileNotFoundError: when there is none; Lightning would train from scratch, or score random weights.
    """
    if given not in ("last", "best"):
        if not Path(given).expanduser().is_file():
            raise FileNotFoundError(f"--ckpt_path {given}: no such file; give an existing checkpoint, `last` or `best`")
        return str(Path(given).expanduser())
    found = sorted((settings.folder / "fit").glob(f"*/checkpoints/{given}.ckpt"), key=os.path.getmtime)
    if not found:
        raise FileNotFoundError(
            f"--ckpt_path {given}: experiment {settings.experiment!r} has no {given}.ckpt in {settings.folder}/fit; "
            "run fit first, name the experiment with --run.experiment, or give a file"
        )
    return str(found[-1])
