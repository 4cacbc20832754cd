"""Synthesis: what methods that make new patches for the pseudo-classes of real ones have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from datamodules.crops import CropDataset
from datamodules.pair import PairBatch
from datamodules.selection import Budget
from datamodules.selection.candidates import BATCH_PIXELS
from datamodules.selection.interfaces import Indices
from lightning_modules.distiller import Distiller
from lightning_modules.requests import quotas


class Synthesis(Distiller):
    """Base of the methods that learn from the datamodule's patches and make others in their place, class by class.

    Args:
        budget: of the set.
        sample_seed: of what is made; null is the datamodule's seed.
    """

    needs_checkpoint: ClassVar[bool] = True
    synthesises: ClassVar[bool] = True

    def __init__(self, budget: Budget, sample_seed: int | None) -> None:
        super().__init__()
        self.budget = budget
        self.sample_seed = sample_seed
        self.strict_loading = False  # checkpoints hold no frozen weights; `on_load_checkpoint` checks what they hold
        self._patches: CropDataset | None = None

    def setup(self, stage: str) -> None:
        """Learns what the real patches are."""
        if stage == "predict":
            self._data.setup("fit")
        self._patches = self._data.training_patches()

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def _seed(self) -> int:
        return int(self._data.seed if self.sample_seed is None else self.sample_seed)

    @property
    def _real(self) -> CropDataset:
        assert self._patches is not None
        return self._patches

    @property
    def _labels(self) -> Indices:
        """Class of each real patch; all are of one where the data have none."""
        labels = self._real.labels
        return np.zeros(len(self._real.windows), dtype=np.int64) if labels is None else labels

    @property
    def _class_sizes(self) -> Indices:
        return np.bincount(self._labels)

    def _quotas(self, side: int) -> Indices:
        """How many patches of each class the budget is, of `side` pixels each."""
        known = self._data.data_budget
        full = 100 * known.pixels / known.percent if known and known.percent else None
        return quotas(self.budget, self._class_sizes, full, side)

    def _real_batches(self) -> Iterator[PairBatch]:
        real, numbers = self._real, range(len(self._real.windows))
        step = max(1, BATCH_PIXELS // self._data.patch_size**2)
        return (real.whole(numbers[at : at + step]) for at in range(0, len(numbers), step))
