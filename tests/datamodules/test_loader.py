"""The stream of batches: the same for any number of workers and processes, resumable, alive under spawn."""

from __future__ import annotations

import pytest
import torch

from datamodules.crops import CropDataset, whole_images
from datamodules.loader import StreamLoader, StreamSampler
from datamodules.pair import PairBatch

PATCH = 24


@pytest.fixture
def patches(position_store) -> CropDataset:
    store = position_store([(120, 200), (96, 240)])
    return CropDataset(store, whole_images(store, range(2)), PATCH, seed=0)


def take(loader: StreamLoader, count: int) -> list[PairBatch]:
    """The next batches, over as many epochs as it takes."""
    batches: list[PairBatch] = []
    while len(batches) < count:
        for batch in loader:
            batches.append(batch)
            if len(batches) == count:
                break
    return batches


def same(left: list[PairBatch], right: list[PairBatch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a.index, b.index) and torch.equal(a.hr, b.hr) and torch.equal(a.lr, b.lr)
        for a, b in zip(left, right, strict=True)
    )


def test_an_epoch_is_full_batches_of_consecutive_samples(patches):
    loader = StreamLoader(patches, StreamSampler(patches, batch_size=8))
    assert len(patches) == 81
    assert len(loader) == 10
    batches = take(loader, 23)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(23 * 8))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_stream(patches, workers):
    alone = take(StreamLoader(patches, StreamSampler(patches, 8)), 22)
    loader = StreamLoader(patches, StreamSampler(patches, 8), num_workers=workers)
    assert same(take(loader, 22), alone)
    assert loader.stream.position == 22 * 8  # what the loop took, not what workers fetched ahead


def test_two_processes_share_what_one_would_take(patches):
    alone = take(StreamLoader(patches, StreamSampler(patches, 8)), 20)
    ranks = [take(StreamLoader(patches, StreamSampler(patches, 4, 0, 2, rank)), 20) for rank in range(2)]
    for whole, *halves in zip(alone, *ranks, strict=True):
        assert torch.equal(whole.index, torch.cat([half.index for half in halves]))
        assert torch.equal(whole.hr, torch.cat([half.hr for half in halves]))


@pytest.mark.parametrize("stop", [3, 10, 14])
def test_a_stream_goes_on_where_it_stopped(patches, stop):
    whole = take(StreamLoader(patches, StreamSampler(patches, 8)), 25)
    first = StreamLoader(patches, StreamSampler(patches, 8))
    begun = take(first, stop)
    resumed = StreamLoader(patches, StreamSampler(patches, 8, position=first.stream.position))
    assert same(begun + take(resumed, 25 - stop), whole)


def test_a_dataset_smaller_than_a_batch(position_store):
    store = position_store([(PATCH, PATCH)])
    dataset = CropDataset(store, whole_images(store, [0]), PATCH, seed=0)
    (batch,) = StreamLoader(dataset, StreamSampler(dataset, 16))
    assert batch.hr.shape == (16, 3, PATCH, PATCH)


def test_workers_do_not_touch_the_global_generator(patches):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(StreamLoader(patches, StreamSampler(patches, 8), num_workers=1), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_spawned_worker_gives_the_same_stream(patches):
    alone = take(StreamLoader(patches, StreamSampler(patches, 8)), 12)
    loader = StreamLoader(patches, StreamSampler(patches, 8), num_workers=1)
    loader.multiprocessing_context = "spawn"
    assert same(take(loader, 12), alone)
