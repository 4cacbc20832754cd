"""ImageGrid: what the network does to the same crops, from validation to validation and at the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from callbacks.drawing import comparison_row, draw_rows
from callbacks.run_folder import run_folder
from datamodules.evaluation import EvaluationSet
from datamodules.pair import PairBatch


class ImageGrid(Callback):
    """Draws LR, bicubic, SR, HR and error of the first images of each set: PNG in `images/`, and W&B.

    At scale 1: input, restored image, truth and error.

    Args:
        images: rows per set; 0 draws nothing.
        side: of the crops in HR pixels.

    Raises:
        ValueError: when one of them is negative, or the side is 0.
    """

    def __init__(self, images: int = 3, side: int = 160) -> None:
        if images < 0 or side < 1:
            raise ValueError(
                f"image_grid: images {images} and side {side}; expected 0 or more rows of 1 or more pixels"
            )
        self.images = images
        self.side = side
        self._rows: dict[str, list[tuple[str, Mapping[str, Tensor]]]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to write."""
        self._folder = run_folder(trainer) / "images"

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects a row."""
        self._collect(trainer.val_dataloaders, outputs, batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects a row."""
        self._collect(trainer.test_dataloaders, outputs, batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, but not the random weights of the sanity check."""
        if trainer.sanity_checking:
            self._rows.clear()
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._draw(trainer, f"step{trainer.global_step:08d}" if fitting else "validate")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws."""
        self._draw(trainer, "test")

    def _collect(self, loaders: Any, outputs: Any, batch: Any, dataloader_idx: int) -> None:
        images = (loaders[dataloader_idx] if isinstance(loaders, list) else loaders).dataset
        if not (isinstance(batch, PairBatch) and isinstance(outputs, Tensor) and isinstance(images, EvaluationSet)):
            return
        rows = self._rows.setdefault(images.name, [])
        for lr, sr, hr, index in zip(batch.lr, outputs, batch.hr, batch.index.tolist(), strict=True):
            if len(rows) < self.images:
                rows.append((images.names[index], comparison_row(lr, sr, hr, self.side)))

    @rank_zero_only
    def _draw(self, trainer: Trainer, stem: str) -> None:
        for name, rows in self._rows.items():
            if not rows:
                continue
            self._folder.mkdir(parents=True, exist_ok=True)
            picture = draw_rows(rows)
            picture.save(
                self._folder / f"{stem}-{name.strip('/').replace('/', '-')}.png"
            )  # a set may be named by its path
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image(f"images/{name}", [picture], step=trainer.global_step)
        self._rows.clear()
