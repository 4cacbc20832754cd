"""W&B's summary of a run: the figures that a dashboard compares, beside what Lightning logs by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger


def summarise(trainer: Trainer, prefix: str, figures: Mapping[str, Any]) -> None:
    """Adds the numbers among `figures` to the summary, as `prefix/name`; without W&B, nothing happens."""
    numbers = {f"{prefix}/{name}": value for name, value in figures.items() if isinstance(value, int | float)}
    for run in _wandb_runs(trainer):
        run.summary.update(numbers)


def summarise_best(trainer: Trainer, metric: str | None, mode: str) -> None:
    """Lets the summary keep the best value of a metric, if any (`max` or `min`, by `mode`), beside the last one."""
    for run in _wandb_runs(trainer) if metric is not None else []:
        run.define_metric(metric, step_metric="trainer/global_step", summary=f"{mode},last")


def _wandb_runs(trainer: Trainer) -> list[Any]:
    """On the first process; the other ones have none."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]
