"""Which checkpoints a run keeps: `last.ckpt`, written often, and `best.ckpt` by the validation metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint


@dataclass
class CheckpointSettings:
    """What is kept in the run folder's `checkpoints/`.

    Attributes:
        every_n_steps: optimiser steps between two writes of `last.ckpt`; it is written at the end of fit too.
        monitor: validation metric that decides which is `best.ckpt`.
        mode: `max` if higher is better, else `min`.
    """

    every_n_steps: int = 500
    monitor: str = "val/psnr_y"
    mode: str = "max"


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` every few steps and at the end of fit (ModelCheckpoint does either the one or the other).

    Args:
        folder: of the file.
        every_n_steps: optimiser steps between two writes.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        self.path = folder / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._saved_at = -1

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Writes when it is time."""
        if trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the final state."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step == self._saved_at or getattr(trainer, "fast_dev_run", False):
            return
        trainer.save_checkpoint(self.path)
        self._saved_at = trainer.global_step


def checkpoint_callbacks(settings: CheckpointSettings, run: Path) -> list[Checkpoint]:
    """The two callbacks that write `best.ckpt` and `last.ckpt`."""
    folder = run / "checkpoints"
    best = ModelCheckpoint(
        folder,
        filename="best",
        monitor=settings.monitor,
        mode=settings.mode,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return [best, LastCheckpoint(folder, settings.every_n_steps)]
