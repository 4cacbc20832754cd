"""When a curriculum's second stage begins, and what a curriculum cannot work with."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.base import SRDataModule
from datamodules.crops import CropDataset
from datamodules.curriculum import MOST_WORKERS
from datamodules.loader import StreamLoader, StreamSampler
from datamodules.selected import refuse_criterion
from datamodules.selection.interfaces import Criterion
from lightning_modules.super_resolution import SuperResolution

ON = "curriculum.enabled is true but"


def refuse_values(shares: dict[str, float], everywhere: float, counts: dict[str, int], switch: float) -> None:
    """Checks options that make no sense in any run.

    Raises:
        ValueError: naming the option.
    """
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise ValueError(f"curriculum.{name} is {share}; expected a share above 0 and at most 1, such as 0.5")
    if not 0 <= everywhere <= 1:
        raise ValueError(f"curriculum.everywhere is {everywhere}; expected a share from 0 to 1, such as 0.25")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"curriculum.{name} is {count}; expected 1 or more")
    if not switch > 0 or (switch >= 1 and switch % 1):
        raise ValueError(
            f"curriculum.switch is {switch}; expected a share of the run below 1, or a whole number from 1"
        )


def refuse_run(trainer: Trainer, module: LightningModule, complexity: Criterion) -> None:
    """Checks that there is a stream of crops to choose from, a model that can be asked, and complexity that differs.

    Raises:
        ValueError: saying what there is instead.
    """
    data: Any = getattr(trainer, "datamodule", None)
    if not isinstance(module, SuperResolution):
        raise ValueError(f"{ON} {type(module).__name__} chooses its own data; leave it out, it is for SuperResolution")
    if getattr(trainer, "overfit_batches", 0):
        raise ValueError(f"{ON} trainer.overfit_batches repeats the same batches; leave out one of them")
    if not isinstance(data, SRDataModule):
        raise ValueError(f"{ON} the data come from {type(data).__name__}; expected an SRDataModule such as RealImages")
    if data.num_workers > MOST_WORKERS:
        raise ValueError(
            f"{ON} data.num_workers is {data.num_workers}; expected at most {MOST_WORKERS}, "
            "which fetch no further ahead than is decided"
        )
    refuse_criterion("curriculum.complexity", complexity, data.scale)


def stream_of(trainer: Trainer) -> tuple[StreamSampler, CropDataset]:
    """The stream that is trained on, and what it is cut from.

    Raises:
        ValueError: when the datamodule brought another loader.
    """
    loader: Any = trainer.train_dataloader
    if not isinstance(loader, StreamLoader) or not isinstance(loader.dataset, CropDataset):
        raise ValueError(f"{ON} the training data are read by a {type(loader).__name__}; expected the stream of crops")
    return loader.stream, loader.dataset


def monitored(trainer: Trainer) -> tuple[str, str]:
    """The validation metric that decides which checkpoint is best, and whether `max` or `min` is.

    Raises:
        ValueError: when there is none.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            return callback.monitor, callback.mode
    raise ValueError(
        "curriculum.at is plateau but no metric is watched; set checkpoint.monitor, for example to val/psnr_y"
    )


def switch_step(trainer: Trainer, at: str, switch: float) -> int:
    """Optimiser steps of stage one.

    Args:
        trainer: in training.
        at: `step`, `epoch` or `plateau`.
        switch: a share of the run below 1, else a number of epochs where `at` says so, or of steps.

    Raises:
        ValueError: when that is not within the run, or the run has no end to take a share of.
    """
    total = trainer.estimated_stepping_batches
    unit = _steps_per_epoch(trainer) if at == "epoch" else 1
    if switch < 1 and math.isinf(total):
        raise ValueError(
            f"curriculum.switch is {switch}, a share of the run, but the run has no end; "
            "give a number of steps or epochs, or set trainer.max_steps"
        )
    step = unit * (int(switch) if switch >= 1 else max(1, round(switch * total / unit)))
    if step >= total and (switch >= 1 or at == "epoch"):  # a share of a run of one step is no mistake
        raise ValueError(
            f"curriculum.switch is {switch:g}, after optimiser step {step}, but the run ends after step {total:g}; "
            "expected an earlier one, or curriculum.at step with a share of the run such as 0.5"
        )
    return step


def running_number(step: int, trainer: Trainer, stream: StreamSampler) -> int:
    """Of the first sample that is trained on after so many optimiser steps, counted from where the run is."""
    batches = _batches_before(step, trainer) - _batches_before(trainer.global_step, trainer)
    return stream.position + batches * stream.global_batch


def _batches_before(step: int, trainer: Trainer) -> int:
    """An epoch's last step is made of what batches are left."""
    epochs, steps = divmod(step, _steps_per_epoch(trainer))
    return epochs * int(trainer.num_training_batches) + steps * trainer.accumulate_grad_batches


def _steps_per_epoch(trainer: Trainer) -> int:
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
