"""Which checkpoints a run keeps: `last.ckpt`, written often, and `best.ckpt` by the validation metric."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint


@dataclass
class CheckpointSettings:
    """What is kept in the run folder's `checkpoints/`.

    Attributes:
        every_n_steps: optimiser steps between two writes of `last.ckpt`; it is written at the end of fit too.
        monitor: validation metric that decides which is `best.ckpt`; null writes none.
        mode: `max` if higher is better, else `min`.

    Raises:
        ValueError: when `every_n_steps` is not positive.
    """

    every_n_steps: int = 500
    monitor: str | None = "val/psnr_y"
    mode: Literal["max", "min"] = "max"

    def __post_init__(self) -> None:
        if self.every_n_steps < 1:
            raise ValueError(f"checkpoint.every_n_steps is {self.every_n_steps}; expected 1 or more optimiser steps")


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` every few steps and at the end of fit (ModelCheckpoint does either the one or the other).

    Args:
        folder: of the file.
        every_n_steps: optimiser steps between two writes.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        self.path = folder / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._step = 0
        self._saved_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts at the step that a checkpoint brought."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Writes when it is time, never between the batches of one step: gradients are not in a checkpoint."""
        stepped = trainer.global_step > self._step
        self._step = trainer.global_step
        if stepped and self._step % self.every_n_steps == 0:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes again what was written just before, so that a resumed run knows how this validation went."""
        if self._saved_at == trainer.global_step:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the final state."""
        if self._saved_at != trainer.global_step:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_at = trainer.global_step


class BestCheckpoint(ModelCheckpoint):
    """Writes `best.ckpt`; a resumed run starts with its predecessor's, which stays until a better one comes.

    Args:
        folder: of the file.
        monitor: validation metric.
        mode: `max` or `min`.
    """

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(
            folder,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self._predecessor: dict[str, Any] = {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the predecessor's score until training starts (ModelCheckpoint forgets it in a new folder)."""
        self._predecessor = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the predecessor's file, if it is still there."""
        super().on_train_start(trainer, pl_module)
        before, folder = Path(self._predecessor.get("best_model_path", "")), self.dirpath
        if folder is None or not before.is_file():
            return
        path = os.path.join(folder, "best.ckpt")  # noqa: PTH118  # ModelCheckpoint compares strings
        score = self._predecessor["best_model_score"]
        ours = {"dirpath": folder, "best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: score}}
        super().load_state_dict({**self._predecessor, **ours})
        if trainer.is_global_zero:
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy2(before, path)  # with its time: until this run has a last.ckpt, the predecessor's is the newest


def checkpoint_callbacks(settings: CheckpointSettings, run: Path) -> list[Checkpoint]:
    """The callbacks that write `best.ckpt`, where a metric is monitored, and `last.ckpt`."""
    folder = run / "checkpoints"
    last = LastCheckpoint(folder, settings.every_n_steps)
    if settings.monitor is None:
        return [last]
    return [BestCheckpoint(folder, settings.monitor, settings.mode), last]  # in this order: the last knows of the best
