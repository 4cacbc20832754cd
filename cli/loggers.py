"""Which loggers a run has: CSV always, W&B as asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import CSVLogger, Logger

from cli.run_folders import RunSettings

Mode = Literal["online", "offline", "shared", "disabled"]
MODES: dict[str, Mode] = {
    "online": "online",
    "offline": "offline",
    "shared": "shared",
    "disabled": "disabled",
    "run": "online",
    "dryrun": "offline",
}
"""What WANDB_MODE may be. The last two are old names, but WandbLogger still sets the very last one."""


def run_loggers(run_dir: Path, run: RunSettings, stage: str) -> list[Logger]:
    """The loggers of a run, all writing into its folder; `Provenance` gives W&B the configuration and the labels."""
    loggers: list[Logger] = [CSVLogger(run_dir, name="", version="")]
    mode = wandb_mode(run.wandb)
    if mode != "disabled":
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        logger = WandbLogger(
            name=run.experiment if run.labels else run_dir.name,
            save_dir=run_dir,
            offline=mode == "offline",
            project=run.project,
            group=run.group or run.experiment,
            job_type=run.job_type or stage,
            settings=wandb.Settings(silent=mode == "offline"),
        )
        logger._wandb_init.pop("anonymous", None)  # noqa: SLF001  # W&B has no such option any more, and warns of it
        loggers.append(logger)
    return loggers


def wandb_mode(asked: str) -> Mode:
    """W&B's mode.

    Args:
        asked: as in `RunSettings`; `auto` asks the environment.

    Raises:
        ModuleNotFoundError: when W&B is asked for but not installed.
        ValueError: when WANDB_MODE is none of W&B's modes.
    """
    if importlib.util.find_spec("wandb") is None:
        if asked in ("auto", "disabled"):
            return "disabled"
        raise ModuleNotFoundError(f'run.wandb is {asked}, but wandb is not installed: pip install "srdistill[wandb]"')
    mode = os.environ.get("WANDB_MODE", "offline") if asked == "auto" else asked
    if mode not in MODES:
        raise ValueError(f"WANDB_MODE is {mode!r}; expected {', '.join(MODES)}, or unset it")
    return MODES[mode]


def finish_wandb(exit_code: int) -> None:
    """Ends the process's W&B run, if there is one, so that a next run of the same process gets its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)
