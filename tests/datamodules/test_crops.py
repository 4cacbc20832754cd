"""Crops in register, evenly spread, and a function of seed and sample number alone."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import crops
from datamodules.bicubic import downscale
from datamodules.crops import CropDataset, Window, sub_images, whole_images

PATCH = 24


def places(dataset: CropDataset, numbers: range) -> np.ndarray:
    """(image, top, left) of each sample, read from its first pixel."""
    return dataset.__getitems__(list(numbers)).hr[:, :, 0, 0].numpy().astype(int)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_is_cropped_where_hr_is(position_store, scale):
    store = position_store([(90, 61), (31, 200), (24, 24)], scale)
    dataset = CropDataset(store, whole_images(store, range(3)), PATCH, seed=0)
    batch = dataset.__getitems__(range(200))
    whole = [downscale(torch.from_numpy(store.hr(image).copy()).permute(2, 0, 1), scale) for image in range(3)]
    seen = set()
    for hr, lr in zip(batch.hr, batch.lr, strict=True):
        image, top, left = hr[:, 0, 0].tolist()
        assert top % scale == left % scale == 0
        rows, columns = torch.meshgrid(top + torch.arange(PATCH), left + torch.arange(PATCH), indexing="ij")
        assert torch.equal(hr[1], rows.byte())
        assert torch.equal(hr[2], columns.byte())
        low = [slice(start // scale, (start + PATCH) // scale) for start in (top, left)]
        assert torch.equal(lr, whole[image][:, *low])
        seen.add(image)
    assert seen == {0, 1, 2}
    assert batch.hr.dtype == batch.lr.dtype == torch.uint8


def test_an_epoch_gives_every_window_its_share(position_store):
    store = position_store([(96, 240), (48, 48), (24, 24), (240, 240)])
    dataset = CropDataset(store, whole_images(store, range(4)), PATCH, seed=3)
    areas = np.array([96 * 240, 48 * 48, 24 * 24, 240 * 240])
    assert len(dataset) == areas.sum() // PATCH**2
    for epoch in range(3):
        drawn = places(dataset, range(epoch * len(dataset), (epoch + 1) * len(dataset)))
        counts = np.bincount(drawn[:, 0], minlength=4)
        assert np.abs(counts - len(dataset) * areas / areas.sum()).max() <= 1  # stratified: at most a rounding away


def test_crops_reach_every_place_of_an_image_equally(position_store):
    store = position_store([(40, 44)])
    dataset = CropDataset(store, whole_images(store, [0]), PATCH, seed=1)
    drawn = places(dataset, range(6000))
    tops, lefts = (np.unique(drawn[:, axis], return_counts=True) for axis in (1, 2))
    assert tops[0].tolist() == [0, 4, 8, 12, 16]
    assert lefts[0].tolist() == [0, 4, 8, 12, 16, 20]
    for counts in (tops[1], lefts[1]):
        assert np.abs(counts / counts.mean() - 1).max() < 0.15  # five standard deviations of a fair draw


def test_a_huge_epoch_is_permuted_in_rounds(position_store, monkeypatch):
    store = position_store([(240, 240), (240, 240)])
    monkeypatch.setattr(crops, "ROUND", 20)
    dataset = CropDataset(store, whole_images(store, range(2)), PATCH, seed=0)
    assert len(dataset) == 200
    for start in range(0, 200, 20):
        assert np.bincount(places(dataset, range(start, start + 20))[:, 0]).tolist() == [10, 10]


def test_a_sample_does_not_depend_on_its_batch(position_store):
    store = position_store([(96, 96), (64, 128)])
    dataset = CropDataset(store, whole_images(store, range(2)), PATCH, seed=0)
    count = 3 * len(dataset)
    together = dataset.__getitems__(range(count))
    alone = [pickle.loads(pickle.dumps(dataset))[number] for number in (0, count - 1, len(dataset), 5)]  # noqa: S301
    for sample in alone:
        assert torch.equal(sample.hr[0], together.hr[sample.index[0]])
    assert not torch.equal(
        together.hr, CropDataset(store, dataset.windows, PATCH, seed=1).__getitems__(range(count)).hr
    )


def test_an_image_of_exactly_one_patch(position_store):
    store = position_store([(PATCH, PATCH)])
    dataset = CropDataset(store, whole_images(store, [0]), PATCH, seed=0)
    assert len(dataset) == 1
    assert torch.equal(dataset[7].hr[0], torch.from_numpy(store.hr(0).copy()).permute(2, 0, 1))


def test_sub_images_cover_the_image_and_overlap_by_half(position_store):
    store = position_store([(100, 68), (32, 200)])
    windows = sub_images(store, [0, 1], 48)
    assert windows[:8] == [Window(0, top, left, 48, 48) for top in (0, 24, 48, 52) for left in (0, 20)]
    for image, (height, width) in enumerate(store.index.sizes):
        covered = np.zeros((height, width), dtype=bool)
        for window in windows:
            if window.image == image:
                assert 0 <= window.top <= height - window.height
                assert 0 <= window.left <= width - window.width
                assert window.top % 4 == window.left % 4 == 0
                covered[window.top : window.top + window.height, window.left : window.left + window.width] = True
        assert covered.all()
    assert {(window.height, window.width) for window in windows if window.image == 1} == {(32, 48)}


def test_crops_stay_inside_their_sub_image(position_store):
    store = position_store([(100, 100)])
    window = Window(0, 40, 20, 32, 48)
    drawn = places(CropDataset(store, [window], PATCH, seed=0), range(300))
    assert set(drawn[:, 1]) == {40, 44, 48}
    assert set(drawn[:, 2]) == set(range(20, 20 + 48 - PATCH + 1, 4))


def test_smallest_sub_images(position_store):
    store = position_store([(8, 8)])
    assert len(sub_images(store, [0], 4)) == 4


def test_fetching_leaves_no_page_of_the_store_mapped(position_store):
    """/proc/PID/smaps counts the resident pages of each mapping."""
    smaps = Path("/proc/self/smaps")
    if not smaps.is_file():
        pytest.skip("Linux only")
    store = position_store([(256, 256)] * 20)
    dataset = CropDataset(store, whole_images(store, range(20)), PATCH, seed=0)
    dataset.__getitems__(range(500))
    (mapping,) = [part for part in re.split(r"\n(?=[0-9a-f]+-)", smaps.read_text()) if f"{store.folder}/hr.u8" in part]
    assert re.search(r"^Rss: +0 kB$", mapping, re.MULTILINE)
