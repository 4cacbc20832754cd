"""Optimiser and schedule: how long a schedule is, when it steps, and what a resumed run may change."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

HORIZONS = ("total_steps", "T_max", "total_iters")
"""Schedulers' names for their length; None or -1 stands for the whole run."""


class ScheduleError(ValueError):
    """Settings that an optimiser or scheduler refuses, or that cannot take over from a checkpoint's."""


def build_scheduler(
    factory: LRSchedulerCallable, optimizer: Optimizer, trainer: Trainer, interval: str = "step"
) -> LRScheduler:
    """Makes the scheduler; a length left open (`total_steps: null`, `T_max: -1`) becomes the run's number of steps.

    Raises:
        ScheduleError: when a length is open but the run's is not known, or the scheduler counts epochs.
    """
    given = {name: parameter.default for name, parameter in inspect.signature(factory).parameters.items()}
    given |= factory.keywords if isinstance(factory, partial) else {}
    open_lengths = [name for name in HORIZONS if name in given and given[name] in (None, -1)]
    if not open_lengths or given.get("epochs"):
        return factory(optimizer)
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise ScheduleError(f"the schedule's {open_lengths[0]} is the run's length: set trainer.max_steps")
    if interval == "epoch":
        raise ScheduleError(
            f"the schedule's {open_lengths[0]} is open, which means the run's {int(steps)} optimiser steps, but "
            "lr_interval is epoch: set lr_interval to step, or give the number of epochs"
        )
    return factory(optimizer, **dict.fromkeys(open_lengths, int(steps)))


def scheduler_config(scheduler: LRScheduler, interval: str) -> dict[str, Any]:
    """What Lightning is told about a scheduler.

    Raises:
        ScheduleError: when a ReduceLROnPlateau does not say which metric it watches.
    """
    if not isinstance(scheduler, ReduceLROnPlateau):
        return {"scheduler": scheduler, "interval": interval}
    if not hasattr(scheduler, "monitor"):
        raise ScheduleError(
            "ReduceLROnPlateau must know which metric to watch: use class_path lightning.pytorch.cli.ReduceLROnPlateau "
            "with monitor: val/psnr_y and mode: max"
        )
    # Lightning would ask for the metric before the first validation, and at a resume: `step_plateau` steps instead.
    return {"scheduler": scheduler, "monitor": scheduler.monitor, "frequency": sys.maxsize}


def step_plateau(scheduler: Any, metrics: Mapping[str, float]) -> None:
    """Tells a ReduceLROnPlateau what a validation measured; does nothing for other schedulers.

    Args:
        scheduler: of the run.
        metrics: the validation's, by the names they are logged as.

    Raises:
        ScheduleError: when the metric that it watches is not among them.
    """
    if not isinstance(scheduler, ReduceLROnPlateau):
        return
    monitor = scheduler.monitor  # type: ignore[attr-defined]  # see `scheduler_config`
    if monitor not in metrics:
        raise ScheduleError(f"ReduceLROnPlateau monitors {monitor}; validation measures {', '.join(metrics)}")
    scheduler.step(metrics[monitor])


def signature(optimizer: Optimizer, scheduler: LRScheduler | None) -> dict[str, str]:
    """The settings of a fresh optimiser and scheduler as plain texts; equal ones mean equal settings."""
    state = {} if scheduler is None else scheduler.state_dict()
    settings = (_options(optimizer), type(scheduler).__name__, sorted(state.items()))
    return {"optimizer": type(optimizer).__name__, "settings": repr(settings)}


def take_over(
    checkpoint: dict[str, Any], optimizer: Optimizer, scheduler: LRScheduler | None, interval: str = "step"
) -> None:
    """Makes the command line win over a checkpoint: puts the settings of a fresh optimiser and scheduler into it.

    The moments stay; learning rate and the like become what the new schedule has at the step that was reached.

    Args:
        checkpoint: Lightning checkpoint with the `signature` under `schedule`, changed in place.
        optimizer: fresh, over the same parameters.
        scheduler: fresh, on that optimiser.
        interval: `step` or `epoch`, in which the scheduler counts.

    Raises:
        ScheduleError: when the optimiser is of another kind, or the new schedule ends before the step reached.
    """
    before, now = checkpoint["schedule"]["optimizer"], type(optimizer).__name__
    if before != now:
        raise ScheduleError(
            f"the checkpoint was trained with {before}, another optimiser than {now}: resume with {before}, or start "
            "anew from its weights with --model.init_args.init_from"
        )
    if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
        _fast_forward(scheduler, checkpoint["global_step" if interval == "step" else "epoch"])
    for group, options in zip(checkpoint["optimizer_states"][0]["param_groups"], _options(optimizer), strict=True):
        group.update(options)
    checkpoint["lr_schedulers"] = [] if scheduler is None else [scheduler.state_dict()]


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def _fast_forward(scheduler: LRScheduler, steps: int) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the optimiser does not step here, and need not
            for _ in range(steps):
                scheduler.step()
    except ValueError as error:
        raise ScheduleError(
            f"the schedule ends before step {steps}, which the checkpoint has reached; raise trainer.max_steps, "
            "or start anew from the weights with --model.init_args.init_from"
        ) from error
