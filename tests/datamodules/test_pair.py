"""The batch that every datamodule yields."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.pair import PairBatch, collate_pairs, to_uint8


def batch(count: int = 2, dtype: torch.dtype = torch.uint8) -> PairBatch:
    return PairBatch(
        torch.full((count, 3, 4, 5), 51, dtype=dtype), torch.ones(count, 3, 12, 15, dtype=dtype), torch.arange(count)
    )


def test_scale_and_length():
    assert batch().scale == 3
    assert len(batch(5)) == 5


@pytest.mark.parametrize(
    ("lr", "hr", "index"),
    [
        ((2, 3, 4, 5), (2, 3, 12, 14), 2),  # no whole scale
        ((2, 3, 4, 5), (2, 3, 12, 10), 2),  # another scale in each direction
        ((2, 3, 4, 5), (1, 3, 12, 15), 1),  # another number of images
        ((2, 3, 4, 5), (2, 1, 12, 15), 2),  # another number of channels
        ((2, 3, 4, 5), (2, 3, 12, 15), 3),
        ((3, 4, 5), (3, 12, 15), 3),
        ((2, 3, 0, 5), (2, 3, 0, 15), 2),
    ],
)
def test_what_is_no_pair_is_refused_with_its_shapes(lr, hr, index):
    with pytest.raises(ValueError, match="are not a batch of pairs") as error:
        PairBatch(torch.zeros(lr), torch.zeros(hr), torch.arange(index))
    assert str(lr) in str(error.value)
    assert str(hr) in str(error.value)


def test_pixels_become_floats_once():
    floats = batch().to_float()
    assert floats.lr.unique().tolist() == pytest.approx([0.2])
    assert floats.hr.dtype == torch.float32
    assert floats.to_float() is floats


def test_other_images_keep_the_index():
    changed = batch().with_images(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 4, 4))
    assert changed.index.tolist() == [0, 1]
    assert changed.scale == 2


def test_collated_samples_are_floats():
    samples = [(torch.full((3, 2, 2), 255, dtype=torch.uint8), torch.zeros(3, 8, 8, dtype=torch.uint8), 7)]
    pairs = collate_pairs(samples)
    assert pairs.lr.shape == (1, 3, 2, 2)
    assert pairs.lr.unique().tolist() == [1.0]
    assert pairs.index.tolist() == [7]
    assert pairs.index.dtype == torch.int64


def test_moving_keeps_everything():
    moved = batch().to(torch.device("meta"))
    assert moved.lr.is_meta
    assert moved.hr.is_meta
    assert moved.index.is_meta


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_floats_become_the_nearest_of_256_steps(dtype):
    """By NumPy; between the steps, outside of [0, 1], and in a format that has fewer digits."""
    images = torch.linspace(-0.2, 1.2, 2 * 3 * 40 * 7).to(dtype).view(2, 3, 40, 7)
    expected = np.rint(images.float().numpy().clip(0, 1) * np.float32(255)).astype(np.uint8)
    found = to_uint8(images)
    assert np.array_equal(found.numpy(), expected)
    steps = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(steps / 255), steps)
