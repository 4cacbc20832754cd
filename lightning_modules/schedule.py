"""Optimiser and schedule: how long a schedule is, and what happens when a resumed run asks for another one."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

HORIZONS = ("total_steps", "T_max", "total_iters")
"""Schedulers' names for their length; None or -1 stands for the whole run."""


class ScheduleError(ValueError):
    """A resumed run asks for an optimiser or schedule that cannot take over from the checkpoint's."""


def build_scheduler(factory: LRSchedulerCallable, optimizer: Optimizer, trainer: Trainer) -> LRScheduler:
    """Makes the scheduler; a length that the YAML leaves open (`total_steps: null`, `T_max: -1`) becomes the run's."""
    given = factory.keywords if isinstance(factory, partial) else {}
    open_lengths = [name for name in HORIZONS if name in given and given[name] in (None, -1)]
    if not open_lengths or given.get("epochs"):
        return factory(optimizer)
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise ScheduleError(
            f"the schedule's {open_lengths[0]} is the run's length: set trainer.max_steps or max_epochs"
        )
    return factory(optimizer, **dict.fromkeys(open_lengths, int(steps)))


def signature(optimizer: Optimizer, scheduler: LRScheduler | None) -> str:
    """All settings of a fresh optimiser and scheduler as one string; equal strings mean equal settings."""
    state = {} if scheduler is None else scheduler.state_dict()
    return repr((type(optimizer).__name__, _options(optimizer), type(scheduler).__name__, sorted(state.items())))


def take_over(checkpoint: dict[str, Any], optimizer: Optimizer, scheduler: LRScheduler | None) -> None:
    """Makes the command line win over a checkpoint: puts the settings of a fresh optimiser and scheduler into it.

    The moments stay; learning rate and the like become what the new schedule has at the step that was reached.

    Args:
        checkpoint: Lightning checkpoint, changed in place.
        optimizer: fresh, over the same parameters.
        scheduler: fresh, on that optimiser.

    Raises:
        ScheduleError: when the optimiser is of another kind, or the new schedule ends before the step reached.
    """
    saved = checkpoint["optimizer_states"][0]
    if set(saved["param_groups"][0]) - {"params"} - SCHEDULED != set(_options(optimizer)[0]) - SCHEDULED:
        raise ScheduleError(
            f"the checkpoint was trained with another optimiser than {type(optimizer).__name__}; "
            "resume with the same one, or start anew from its weights with --model.init_args.init_from"
        )
    if isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau):
        before = checkpoint["lr_schedulers"]
        _fast_forward(scheduler, before[0]["last_epoch"] if before else checkpoint["global_step"])
    for group, options in zip(saved["param_groups"], _options(optimizer), strict=True):
        group.update(options)
    checkpoint["lr_schedulers"] = [] if scheduler is None else [scheduler.state_dict()]


SCHEDULED = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}
"""Entries that schedulers write into an optimiser's groups."""


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
