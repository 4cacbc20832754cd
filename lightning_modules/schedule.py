"""Optimiser and schedule: how long a schedule is, when it steps, and what a resumed run may change."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

HORIZONS = ("total_steps", "T_max", "total_iters")
"""Schedulers' names for their length; None or -1 stands for the whole run."""


class ScheduleError(ValueError):
    """Settings that an optimiser or scheduler refuses, or that cannot take over from a checkpoint's."""


class Schedule:
    """Optimiser and scheduler of a module, as its `init_args` give them; at a resume they win over the checkpoint's.

    A module that trains calls each method in the hook that it names. Checkpoints keep the settings under `schedule`.

    Args:
        optimizer: any torch optimiser.
        lr_scheduler: any torch scheduler; null keeps the learning rate. See `build_scheduler` for open lengths.
        lr_interval: what the scheduler counts: optimiser steps or epochs. ReduceLROnPlateau counts validations.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "step",
    ) -> None:
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        self._interval = lr_interval
        self._signature: dict[str, str] | None = None

    def configure(self, module: LightningModule) -> OptimizerLRScheduler:
        """In `configure_optimizers`: the optimiser over the parameters that require a gradient, and its scheduler.

        Raises:
            ScheduleError: for settings that the optimiser or scheduler refuses.
        """
        optimizer, scheduler = self._fresh(module)
        self._signature = signature(optimizer, scheduler)
        if scheduler is None:
            return optimizer
        config = scheduler_config(scheduler, self._interval)
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]

    def save(self, checkpoint: dict[str, Any]) -> None:
        """In `on_save_checkpoint`: adds what tells at resume whether optimiser and schedule are still the same."""
        if self._signature is not None:
            checkpoint["schedule"] = self._signature

    def load(self, checkpoint: dict[str, Any], module: LightningModule) -> None:
        """In `on_load_checkpoint`: puts changed settings into the checkpoint; does nothing when not training.

        Raises:
            ScheduleError: for settings that are refused, or that cannot take over; see `take_over`.
        """
        trainer = module._trainer  # noqa: SLF001  # `trainer` raises when there is none, as in load_from_checkpoint
        if trainer is None or not trainer.training or "schedule" not in checkpoint:
            return
        fresh = self._fresh(module)
        if signature(*fresh) != checkpoint["schedule"]:
            take_over(checkpoint, *fresh, self._interval)

    def after_validation(self, module: LightningModule, metrics: Mapping[str, float]) -> None:
        """In `on_validation_epoch_end`: steps a ReduceLROnPlateau, in a fit and not at its sanity check.

        Args:
            module: whose validation has ended.
            metrics: what it measured, by the names they are logged as.

        Raises:
            ScheduleError: when the metric that the scheduler watches is not among them.
        """
        if module.trainer.state.fn == TrainerFn.FITTING and not module.trainer.sanity_checking:
            step_plateau(module.lr_schedulers(), metrics)

    def _fresh(self, module: LightningModule) -> tuple[Optimizer, LRScheduler | None]:
        optimizer, scheduler = None, None
        try:
            optimizer = self._optimizer([p for p in module.parameters() if p.requires_grad])
            if self._lr_scheduler is not None:
                scheduler = build_scheduler(self._lr_scheduler, optimizer, module.trainer, self._interval)
        except ScheduleError:
            raise
        except (ValueError, TypeError) as error:
            refused = "optimizer" if optimizer is None else "lr_scheduler"
            raise ScheduleError(f"model.init_args.{refused}: {error}") from error
        return optimizer, scheduler


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
