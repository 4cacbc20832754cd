"""Distiller: what every method of dataset distillation is; its `predict` makes the patches of a distilled set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import lightning as L
from torch.utils.data import DataLoader, IterableDataset

from datamodules.base import SRDataModule
from datamodules.distilled import DistilledPatch


class Distiller(L.LightningModule):
    """Base of the methods: `predict` makes patches batch by batch, and DistilledWriter writes them as a folder.

    A subclass has a `predict_step`, and overrides `batches` when it draws from something else than the datamodule's
    patches. One that learns something first has a `training_step` too, and sets `needs_checkpoint`.

    Attributes:
        method: name of the method in provenance and tables.
        needs_checkpoint: whether the command line refuses `predict` without trained weights.
        synthesises: whether the patches are new ones, which diagnostics compare with the real ones.
        seconds_before: spent in earlier runs on patches that this one did not have to make again; part of the set's
            cost.
    """

    method: ClassVar[str]
    needs_checkpoint: ClassVar[bool] = False
    synthesises: ClassVar[bool] = False
    seconds_before: float = 0.0

    def batches(self, data: SRDataModule) -> Iterable[Any]:
        """What `predict_step` gets, in the order of the set: by default the training patches, whole.

        Args:
            data: after `setup("fit")`.

        Returns:
            Batches, the same ones in the same order on every process; of patches, lists of `data.batch_size`.
        """
        patches = data.distilled_patches()
        return iter(lambda: list(itertools.islice(patches, data.batch_size)), [])

    def fit_data(self, data: SRDataModule) -> DataLoader[Any] | None:
        """What `training_step` gets, endlessly, where that is not the datamodule's stream of crops.

        Args:
            data: after `setup("fit")`.
        """
        return None

    def predict_data(self, data: SRDataModule) -> DataLoader[Any]:
        """This process's batches: number i of process r is number i * processes + r of all."""
        share = _Share(self.batches(data), self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(share, batch_size=None)

    def predict_step(self, batch: Any, batch_idx: int) -> list[DistilledPatch]:
        """The patches that a batch becomes, in order."""
        raise NotImplementedError(
            f"{type(self).__name__} has no predict_step; set model to PatchSelection or Relabelling"
        )

    def keep(self, patches: Callable[[], Iterator[DistilledPatch]]) -> Sequence[int] | None:
        """Which patches the set consists of: for methods that make more than their budget.

        Called once, when all are made, on the first process alone: nothing here may wait for the others.

        Args:
            patches: streams all that were made, in order, from disk; each call begins anew.

        Returns:
            Positions among these, distinct; the set has them in ascending order. None keeps all.
        """
        return None

    def record(self) -> dict[str, Any]:
        """What the set's provenance says of this method beside its configuration; plain values. Asked after `keep`."""
        return {}


class _Share(IterableDataset[Any]):
    """Every so many batches of a sequence, for one of several processes."""

    def __init__(self, batches: Iterable[Any], rank: int, processes: int) -> None:
        self._batches = batches
        self._rank = rank
        self._processes = processes

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self._batches, self._rank, None, self._processes)
