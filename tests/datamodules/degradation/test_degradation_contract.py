"""What every degradation promises: sizes, range, reproducibility, the same result in every batch, plain values."""

from __future__ import annotations

import pickle

import pytest
import torch

from datamodules import degradation
from datamodules.degradation import (
    JPEG,
    Bicubic,
    Chain,
    Degradation,
    GaussianBlur,
    GaussianNoise,
    Haze,
    LowLight,
    MotionBlur,
    OneOf,
    PoissonNoise,
    RainStreaks,
)

DEGRADATIONS: list[Degradation] = [
    Bicubic(4),
    GaussianBlur([0.0, 3.0]),
    MotionBlur(),
    GaussianNoise([0, 50]),
    PoissonNoise([20, 200]),
    JPEG([10, 90]),
    RainStreaks(),
    Haze(),
    LowLight(),
    OneOf([GaussianNoise(), MotionBlur(), RainStreaks(), Chain([Haze(), JPEG()])]),
    Chain([GaussianBlur(), Bicubic(2), GaussianNoise(), JPEG([30, 90])]),
]
RANDOM = DEGRADATIONS[1:]
each = pytest.mark.parametrize("one", DEGRADATIONS, ids=lambda one: type(one).__name__)
each_random = pytest.mark.parametrize("one", RANDOM, ids=lambda one: type(one).__name__)


def images(count: int = 6, height: int = 32, width: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)), torch.arange(count) * 1000


def test_every_exported_class_is_tested():
    exported = {getattr(degradation, name) for name in degradation.__all__} - {Degradation, degradation.seeds_of}
    assert exported == {type(one) for one in DEGRADATIONS}


@each
@pytest.mark.parametrize("size", [(32, 48), (4, 4), (8, 64), (100, 4)])
def test_size_dtype_and_range(one, size):
    clean, index = images(3, *size)
    degraded = one(clean, index, 1)
    assert degraded.shape == (3, 3, size[0] // one.factor, size[1] // one.factor)
    assert degraded.dtype == torch.float32
    assert degraded.min() >= 0
    assert degraded.max() <= 1
    assert not torch.equal(degraded, clean)


@each
def test_black_and_white_stay_in_range(one):
    for value in (0.0, 1.0):
        degraded = one(torch.full((2, 3, 16, 16), value), torch.arange(2), 3)
        assert degraded.isfinite().all()
        assert 0 <= degraded.min() <= degraded.max() <= 1


@each
def test_a_sample_does_not_depend_on_its_batch(one):
    clean, index = images()
    whole = one(clean, index, 5)
    for rows in ([0], [5], [4, 1], [3, 2, 1, 0]):
        assert torch.equal(one(clean[rows], index[rows], 5), whole[rows])


@each
def test_the_input_stays(one):
    clean, index = images()
    before = clean.clone()
    one(clean, index, 5)
    assert torch.equal(clean, before)


@each_random
def test_seed_and_index_decide(one):
    clean, index = images()
    first = one(clean, index, 5)
    torch.manual_seed(1)  # must not matter
    assert torch.equal(one(clean, index, 5), first)
    assert not torch.equal(one(clean, index + 1, 5), first)
    if not isinstance(one, GaussianBlur):  # random in one number only; the others are in every sample
        assert ((one(clean, index, 6) - first).abs().flatten(1).amax(1) > 0).sum() >= 4


@each
def test_copies_in_other_processes_do_the_same(one):
    clean, index = images()
    copy = pickle.loads(pickle.dumps(one))  # noqa: S301 - made here
    assert torch.equal(copy(clean, index, 5), one(clean, index, 5))


@each
def test_autocast_changes_nothing(one):
    clean, index = images(2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = one(clean, index, 5)
    assert torch.equal(inside, one(clean, index, 5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each
def test_the_gpu_agrees(one):
    clean, index = images()
    on_gpu = one(clean.cuda(), index.cuda(), 5)
    assert on_gpu.is_cuda
    off = (on_gpu.cpu() - one(clean, index, 5)).abs() > 1e-5
    assert off.float().mean() < 0.01  # where values are rounded, to 8 bits or to photons, ties may go either way
