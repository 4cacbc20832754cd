"""What is computed of candidates, and its cache."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
import torch

from datamodules.selection import candidates as candidates_module
from datamodules.selection import computed
from datamodules.selection.candidates import Candidates
from datamodules.selection.computed import embed, rounded, score
from datamodules.selection.interfaces import Criterion, Features

CPU = torch.device("cpu")


class Corner(Features):
    """The colour of a patch's first pixel, times a factor, repeated; counts how often it was loaded."""

    def __init__(self, factor: float = 1.0, repeat: int = 1) -> None:
        self.factor = factor
        self.repeat = repeat
        self._loads = 0

    def load(self, device):
        self._loads += 1

    def __call__(self, hr):
        return (hr[:, :, 0, 0] * self.factor).repeat(1, self.repeat)


class Column(Criterion):
    """A third of the mean blue level."""

    label = "a third of the column"
    complex_when = "high"

    def __call__(self, pairs):
        return pairs.hr[:, 2].double().mean((1, 2)) / 3


@pytest.fixture
def grid(position_store):
    """35 patches of 16 x 16 of two images; red is the image, green the row, blue the column."""
    return Candidates(position_store([(80, 80), (32, 96)]), [0, 1], 16, 16)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_vectors_are_those_of_the_chosen_in_their_order(grid, cache):
    chosen = np.array([30, 2, 9])
    vectors = embed(Corner(repeat=2), grid, chosen, cache, CPU)
    expected = grid.places[chosen][:, [0, 1, 2]] / 255  # image, top and left are the colour there
    np.testing.assert_allclose(vectors, np.tile(expected, 2), rtol=2**-17)
    assert vectors.dtype == np.float32
    assert isinstance(vectors, np.memmap)
    assert not vectors.flags.writeable


def test_scores_are_rounded_doubles(grid, cache):
    scores = score(Column(), grid, cache, CPU)
    exact = (grid.places[:, 2] + 7.5) / 3
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, exact, rtol=2**-20)
    assert not np.array_equal(scores, exact)


def test_second_call_reads_what_the_first_wrote(grid, cache):
    features, chosen = Corner(), np.arange(20)
    first = np.array(embed(features, grid, chosen, cache, CPU))
    assert np.array_equal(embed(features, grid, chosen, cache, CPU), first)
    assert features._loads == 1


def test_other_settings_patches_or_sizes_are_computed_anew(grid, cache, position_store):
    chosen = np.arange(20)
    embed(Corner(), grid, chosen, cache, CPU)
    others = [
        (Corner(2.0), grid, chosen),
        (Corner(), grid, chosen[::-1].copy()),
        (Corner(), grid, chosen[:-1]),
        (Corner(), Candidates(grid.store, [0, 1], 32, 16), np.arange(10)),
        (Corner(), Candidates(grid.store, [1], 16, 8), np.arange(20)),
        (Corner(), Candidates(position_store([(80, 80)], scale=2), [0], 16, 16), chosen),
    ]
    for features, candidates, some in others:
        embed(features, candidates, some, cache, CPU)
        assert features._loads == 1
    assert len(list((cache / "features").glob("*.npy"))) == 1 + len(others)


def test_memory_does_not_grow_with_the_patches(position_store, cache, monkeypatch):
    monkeypatch.setattr(candidates_module, "BATCH_PIXELS", 64 * 16)
    many = Candidates(position_store([(256, 256)]), [0], 4, 4)
    features = Corner(repeat=1024)
    tracemalloc.start()
    vectors = embed(features, many, np.arange(len(many)), cache, CPU)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert vectors.nbytes == 4096 * 3072 * 4  # 50 MB, in blocks of 0.8 MB
    assert peak < 8e6


def test_simultaneous_calls_compute_once(grid, cache):
    features, vectors = Corner(), []
    threads = [
        threading.Thread(target=lambda: vectors.append(embed(features, grid, np.arange(20), cache, CPU)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(vectors) == 4
    assert features._loads == 1


def test_a_failure_leaves_nothing_and_the_next_call_starts_anew(grid, cache, monkeypatch):
    monkeypatch.setattr(candidates_module, "BATCH_PIXELS", 4 * 256)

    class Failing(Corner):
        def __call__(self, hr):
            if self._loads == 1 and hr[0, 0, 0, 0] > 0:  # in the second image: blocks are written already
                raise RuntimeError("stopped")
            return super().__call__(hr)

    features = Failing()
    with pytest.raises(RuntimeError, match="stopped"):
        embed(features, grid, np.arange(35), cache, CPU)
    assert [path.suffix for path in (cache / "features").iterdir()] in ([], [".lock"])
    assert embed(features, grid, np.arange(35), cache, CPU).shape == (35, 3)


def test_what_a_killed_process_left_is_removed(grid, cache):
    chosen = np.arange(20)
    name = f".{computed.key(Corner(), grid, chosen)}.npy.0badc0de"
    (cache / "features").mkdir(parents=True)
    (cache / "features" / name).write_bytes(b"half")
    embed(Corner(), grid, chosen, cache, CPU)
    assert not (cache / "features" / name).exists()


def test_a_damaged_file_is_named(grid, cache):
    chosen = np.arange(20)
    embed(Corner(), grid, chosen, cache, CPU)
    (path,) = (cache / "features").glob("*.npy")
    for size in (100, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ValueError, match=rf"{path}: damaged; delete this file"):
            embed(Corner(), grid, chosen, cache, CPU)


def test_an_unusable_cache_is_one_line(grid, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot keep .*data\.cache_dir or in SRDISTILL_CACHE") as caught:
        embed(Corner(), grid, np.arange(20), tmp_path / "file", CPU)
    assert "\n" not in str(caught.value)


def test_values_that_are_no_numbers_are_refused(grid, cache):
    with pytest.raises(ValueError, match=r"Corner is not a finite number"):
        embed(Corner(float("inf")), grid, np.arange(20), cache, CPU)
    assert not list((cache / "features").glob("*.npy"))


def test_neither_gradients_nor_reduced_precision(grid, cache):
    class Curious(Corner):
        def __call__(self, hr):
            self._seen = (
                torch.is_grad_enabled(),
                torch.get_float32_matmul_precision(),
                torch.backends.cudnn.allow_tf32,
            )
            return super().__call__(hr)

    features = Curious()
    torch.set_float32_matmul_precision("high")
    try:
        embed(features, grid, np.arange(20), cache, CPU)
        assert features._seen == (False, "highest", False)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_keeps_bits_and_loses_what_machines_differ_in(dtype):
    values = (np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.arange(-20, 20).repeat(25)).astype(dtype)
    outcome = rounded(values, 17)
    assert outcome.dtype == dtype
    assert np.all(np.abs(outcome - values) <= np.abs(values) * 2.0**-17)
    assert np.array_equal(rounded(outcome, 17), outcome)
    same = rounded(np.nextafter(values, dtype(np.inf)), 17) == outcome
    assert same.mean() > 0.98  # two neighbours differ only where a step lies between them
    edges = np.array([0, 1, -1, 0.5, 131071, np.inf, -np.inf], dtype)
    assert np.array_equal(rounded(edges, 17), edges)
    assert rounded(np.array([1 + 2**-17], dtype), 17) == 1  # half a step: to the even one
