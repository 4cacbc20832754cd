"""The grid against arithmetic, and pixels against a store whose pixels tell where they lie."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.distilled import DistilledPatch, write_distilled
from datamodules.selection.candidates import Candidates


@pytest.fixture
def candidates(position_store) -> Candidates:
    """Of images 1 and 2 of three: 2 x 3 and 1 x 1 patches of 16 pixels."""
    return Candidates(position_store([(32, 32), (24, 40), (16, 20)]), [1, 2], size=16, stride=8)


def test_patches_lie_on_a_grid_inside_each_image(candidates):
    first = [[1, top, left] for top in (0, 8) for left in (0, 8, 16, 24)]
    assert candidates.places.tolist() == [*first, [2, 0, 0]]
    assert candidates.full_pixels == 24 * 40 + 16 * 20
    window = candidates.windows(np.array([5]))[0]
    assert (window.image, window.top, window.left, window.height, window.width) == (1, 8, 8, 16, 16)


def test_pixels_are_those_of_the_place(candidates):
    pairs = candidates.pairs(np.array([6, 0]))
    assert pairs.hr[0, :, 3, 5].tolist() == [1, 8 + 3, 16 + 5]
    assert pairs.hr[1, :, 0, 0].tolist() == [1, 0, 0]
    assert pairs.index.tolist() == [6, 0]
    whole = candidates.store.lr(1)
    np.testing.assert_array_equal(pairs.lr[0].permute(1, 2, 0).numpy(), whole[2:6, 4:8])


def test_batches_are_bounded_and_complete(candidates, monkeypatch):
    monkeypatch.setattr("datamodules.selection.candidates.BATCH_PIXELS", 4 * 16**2)
    everything = np.arange(len(candidates))
    batches = list(candidates.batches(everything, "reading"))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    assert np.concatenate([batch.index.numpy() for batch in batches]).tolist() == everything.tolist()


def test_fingerprint_tells_grids_apart(candidates):
    store = candidates.store
    same = Candidates(store, [1, 2], 16, 8)
    others = [Candidates(store, [1], 16, 8), Candidates(store, [1, 2], 16, 16), Candidates(store, [1, 2], 12, 8)]
    assert same.fingerprint == candidates.fingerprint
    assert candidates.fingerprint not in {other.fingerprint for other in others}


def test_bytes_are_those_of_the_written_set(candidates, tmp_path):
    pairs = candidates.pairs(np.arange(len(candidates)))
    patches = [
        DistilledPatch(hr.permute(1, 2, 0).numpy(), lr.permute(1, 2, 0).numpy())
        for hr, lr in zip(pairs.hr, pairs.lr, strict=True)
    ]
    written = write_distilled(tmp_path / "set", patches, 4, {"method": "test"})
    files = [*(written.folder / "images").iterdir(), *(written.folder / "lr_x4").iterdir()]
    assert candidates.png_bytes(np.arange(len(candidates))) == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (18, 8, r"data\.candidate_size is 18; expected a multiple of the scale 4, such as 64"),
        (16, 0, r"data\.candidate_stride is 0; expected a multiple of the scale 4"),
        (44, 8, r"data\.candidate_size is 44 but the largest square in any photograph has 32 pixels; set a smaller"),
    ],
)
def test_bad_grids(position_store, size, stride, message):
    store = position_store([(32, 32), (24, 40)])
    with pytest.raises(ValueError, match=message):
        Candidates(store, [0, 1], size, stride)
