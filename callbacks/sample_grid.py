"""SampleGrid: what a generative model samples, from validation to validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image
from torch import Tensor

from callbacks.run_folder import run_folder
from callbacks.sheets import SheetRow, contact_sheet
from datamodules.pair import to_uint8


class SampleGrid(Callback):
    """At each validation of `fit`, draws samples of each class: `images/samples_STEP.png`, and W&B.

    For modules with a method `sample_grid(per_class: int) -> tuple[Tensor, list[int] | list[str]]`: images
    (N, 3, side, side), uint8 or floats in [0, 1], and the class of each, or the name of the row that it stands in. It
    is called on the first process, with averaged weights where an EMA is kept.

    Args:
        per_class: samples of each class; 0 draws nothing.

    Raises:
        ValueError: when it is negative.
    """

    def __init__(self, per_class: int = 4) -> None:
        if per_class < 0:
            raise ValueError(f"sample_grid: per_class {per_class}; expected the number to draw, 0 for no pictures")
        self.per_class = per_class

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds out where to write."""
        self._folder = run_folder(trainer) / "images"

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Samples and draws, but not with the random weights of the sanity check."""
        sample: Any = getattr(pl_module, "sample_grid", None)
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not self.per_class or sample is None or not fitting:
            return
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            picture = grid(*sample(self.per_class))
        self._folder.mkdir(parents=True, exist_ok=True)
        picture.save(self._folder / f"samples_{trainer.global_step:08d}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("samples", [picture], step=trainer.global_step)


def grid(images: Tensor, classes: Sequence[int | str]) -> Image.Image:
    """A row per class, in ascending order; or a row per name, in the order of their first images.

    Args:
        images: (N, 3, side, side), uint8 or floats in [0, 1] (others are clipped), at least one.
        classes: of each, or names.
    """
    pixels = images.detach().cpu()
    if pixels.is_floating_point():
        pixels = to_uint8(pixels)
    rows: dict[int | str, list[int]] = {}
    for place, label in enumerate(classes):
        rows.setdefault(label, []).append(place)
    numbers = {f"class {label}": rows[label] for label in sorted(label for label in rows if isinstance(label, int))}
    named = numbers or {str(label): places for label, places in rows.items()}
    return contact_sheet([SheetRow(pixels[some], [""] * len(some), [label]) for label, some in named.items()])
