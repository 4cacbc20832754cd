"""Which loggers a run has: CSV always, W&B as asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger

from cli.run_folders import RunSettings


def run_loggers(run_dir: Path, run: RunSettings, stage: str) -> list[Logger]:
    """The loggers of a run, all writing into its folder."""
    loggers: list[Logger] = [CSVLogger(run_dir, name="", version="")]
    mode = _wandb_mode(run)
    if mode != "disabled":
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(
            WandbLogger(
                name=run_dir.name,
                save_dir=run_dir,
                offline=mode == "offline",
                project=run.project,
                group=run.experiment,
                job_type=stage,
                settings=wandb.Settings(silent=mode == "offline"),
            )
        )
    return loggers


def _wandb_mode(run: RunSettings) -> str:
    """W&B's mode; `auto` asks the environment.

    Raises:
        ModuleNotFoundError: when W&B is asked for but not installed.
    """
    installed = importlib.util.find_spec("wandb") is not None
    if run.wandb == "auto":
        return os.environ.get("WANDB_MODE", "offline") if installed else "disabled"
    if run.wandb != "disabled" and not installed:
        raise ModuleNotFoundError(
            f'run.wandb is {run.wandb}, but wandb is not installed: pip install "srdistill[wandb]"'
        )
    return run.wandb


def finish_wandb(exit_code: int) -> None:
    """Ends the process's W&B run, if there is one, so that a next run of the same process gets its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)
