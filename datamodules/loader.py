"""A training loader that can start anywhere in the stream of samples, so that a run resumes in mid-epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sized

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.pair import PairBatch

# Lightning looks for the position in the loader; ours is kept in the datamodule's state, which is restored earlier.
warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")

AHEAD = 2
"""Batches that each worker is told to fetch before the training loop wants them."""


class StreamSampler(DistributedSampler[PairBatch]):
    """Running numbers of samples, without end: one process after the other takes its block of each global batch.

    Being a DistributedSampler keeps Lightning from wrapping it in another. The union of the blocks is the same for any
    number of processes as long as the global batch (batch_size x processes) is.

    Args:
        dataset: addressed by running numbers; its length is one epoch.
        batch_size: samples per process and batch.
        position: running number to start at.
        replicas: number of processes.
        rank: of this process.

    Attributes:
        position: running number of the next sample that the training loop gets.
        windows: says which window each sample is cut from, int64 (B,) -> (B,); None leaves that to the dataset. Called
            in this process, when workers are told to fetch: up to `AHEAD` batches for each of them before the loop
            gets the sample.
    """

    def __init__(
        self, dataset: Dataset[PairBatch], batch_size: int, position: int = 0, replicas: int = 1, rank: int = 0
    ) -> None:
        super().__init__(dataset, num_replicas=replicas, rank=rank, shuffle=False)
        self.batch_size = batch_size
        self.position = position
        self.windows: Callable[[Tensor], Tensor] | None = None

    @property
    def global_batch(self) -> int:
        """Samples that all processes take together in one batch."""
        return self.batch_size * self.num_replicas

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)
        return max(1, len(self.dataset) // self.global_batch) * self.batch_size

    def __iter__(self) -> Iterator[int | tuple[int, int]]:  # type: ignore[override]  # torch types samplers by items
        start = self.position + self.rank * self.batch_size
        for batch in range(len(self) // self.batch_size):
            first = start + batch * self.global_batch
            numbers = range(first, first + self.batch_size)
            if self.windows is None:
                yield from numbers
            else:
                yield from zip(numbers, self.windows(torch.tensor(numbers)).tolist(), strict=True)


def _as_fetched(batch: PairBatch) -> PairBatch:
    return batch


class StreamLoader(DataLoader[PairBatch]):
    """DataLoader over a StreamSampler that counts what the training loop has taken (workers fetch ahead of it).

    Args:
        dataset: with `__getitems__` that returns a whole batch.
        sampler: decides the batch size too.
        num_workers: processes that fetch.
    """

    def __init__(self, dataset: Dataset[PairBatch], sampler: StreamSampler, num_workers: int = 0) -> None:
        super().__init__(
            dataset,
            batch_size=sampler.batch_size,
            sampler=sampler,
            num_workers=num_workers,
            prefetch_factor=AHEAD if num_workers else None,
            collate_fn=_as_fetched,  # type: ignore[arg-type]
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            # Its own generator: workers' base seeds must not draw from the global one, or a resumed run would differ.
            generator=torch.Generator(),
        )
        self.stream = sampler

    def __iter__(self) -> Iterator[PairBatch]:  # type: ignore[override]
        for batch in super().__iter__():
            self.stream.position += self.stream.global_batch
            yield batch


def repeating_loader(dataset: Dataset[PairBatch], batch_size: int) -> DataLoader[PairBatch]:
    """The same batches in every epoch, for the Trainer's `overfit_batches`."""
    return DataLoader(dataset, batch_size, collate_fn=_as_fetched)  # type: ignore[arg-type]
