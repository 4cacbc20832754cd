"""Augmentations keep LR the bicubic reduction of HR, and depend on nothing but the seed and the samples' indices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from datamodules.augmentation import (
    Brightness,
    Compose,
    Contrast,
    CutBlur,
    CutMix,
    Inversion,
    Mixup,
    RandomFlip,
    RandomRotate90,
    RGBPermutation,
    ScaleJitter,
)
from datamodules.augmentation.rectangle import paste_rectangles
from datamodules.bicubic import downscale, imresize, upscale
from datamodules.pair import PairBatch

ALL = [
    RandomFlip, RandomRotate90, RGBPermutation, Brightness, Contrast, Inversion, Mixup, CutMix, CutBlur, ScaleJitter,
]  # fmt: skip
MIXING = [Mixup, CutMix]
WITH_RECTANGLE = [CutMix, CutBlur]
ROUNDING = 2e-6  # float32, values up to 1, some twenty operations

every_augmentation = pytest.mark.parametrize("augmentation", ALL, ids=lambda a: a.__name__)


def make_batch(count: int = 8, side: int = 32, scale: int = 4, low: float = 0.1, high: float = 0.9) -> PairBatch:
    """Smooth random pairs with LR = D(HR) in float that span exactly [low, high]; indices from 100 on."""
    rough = torch.rand(count, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    hr = upscale(rough, 4)
    values = torch.cat([hr.flatten(1), downscale(hr, scale).flatten(1)], dim=1)
    smallest, largest = (extreme.view(-1, 1, 1, 1) for extreme in (values.amin(1), values.amax(1)))
    hr = low + (high - low) * (hr - smallest) / (largest - smallest)
    return PairBatch(downscale(hr, scale).clamp(0, 1), hr.clamp(0, 1), torch.arange(100, 100 + count))


def noise(count: int) -> PairBatch:
    """Many tiny samples without any symmetry, all with the same pixels as their neighbours' in no place."""
    lr = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    return PairBatch(lr, upscale(lr, 2).clamp(0, 1), torch.arange(count))


def part(batch: PairBatch, rows) -> PairBatch:
    return PairBatch(batch.lr[rows], batch.hr[rows], batch.index[rows])


def changed(before: PairBatch, after: PairBatch) -> torch.Tensor:
    return ((before.hr != after.hr).flatten(1).any(1)) | ((before.lr != after.lr).flatten(1).any(1))


def same(one: PairBatch, other: PairBatch) -> bool:
    return torch.equal(one.lr, other.lr) and torch.equal(one.hr, other.hr)


@pytest.mark.parametrize("augmentation", [a for a in ALL if a not in WITH_RECTANGLE], ids=lambda a: a.__name__)
@pytest.mark.parametrize(("side", "scale"), [(32, 4), (24, 3), (40, 2)])
@pytest.mark.parametrize("span", [(0.1, 0.9), (0.0, 1.0), (0.3, 0.3)], ids=["room", "full range", "uniform"])
def test_lr_stays_the_reduction_of_hr(augmentation, side, scale, span):
    after = augmentation(probability=1.0)(make_batch(8, side, scale, *span), seed=5)
    assert torch.allclose(after.lr, downscale(after.hr, scale), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("augmentation", WITH_RECTANGLE, ids=lambda a: a.__name__)
@pytest.mark.parametrize(("side", "scale"), [(64, 4), (48, 3)])
def test_lr_stays_the_reduction_of_hr_away_from_the_rectangle(augmentation, side, scale):
    batch = make_batch(8, side, scale)
    ones, zeros = (batch.with_images(torch.full_like(batch.lr, v), torch.full_like(batch.hr, v)) for v in (1.0, 0.0))
    inside = paste_rectangles(ones, zeros, seed=5)
    assert torch.equal(inside.hr, F.interpolate(inside.lr, scale_factor=scale))  # in register, on the LR grid
    near_border = F.max_pool2d(inside.lr, 5, 1, 2) > -F.max_pool2d(-inside.lr, 5, 1, 2)  # 2 pixels to either side

    after = augmentation(probability=1.0)(batch, seed=5)
    error = (after.lr - downscale(after.hr, scale)).abs()
    assert error[~near_border].max() < ROUNDING
    assert torch.equal(after.lr[inside.lr == 0], batch.lr[inside.lr == 0])
    assert torch.equal(after.hr[inside.hr == 0], batch.hr[inside.hr == 0])
    assert (after.hr != batch.hr)[inside.hr == 1].float().mean() > 0.9
    assert 0.03 < inside.lr.mean() < 0.6  # sides of 1/4 to 3/4


@every_augmentation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_shape_dtype_range_and_input_are_kept(augmentation, dtype):
    batch = make_batch(low=0.0, high=1.0)
    images = [t.clamp(0, 1).to(dtype).contiguous(memory_format=torch.channels_last) for t in (batch.lr, batch.hr)]
    batch = batch.with_images(*images)
    copy = batch.with_images(batch.lr.clone(), batch.hr.clone())
    after = augmentation(probability=0.8)(batch, seed=5)
    assert same(batch, copy)
    for image, original in ((after.lr, batch.lr), (after.hr, batch.hr)):
        assert (image.dtype, image.shape) == (dtype, original.shape)
        assert image.min() >= 0
        assert image.max() <= 1


@every_augmentation
def test_seed_and_index_decide(augmentation):
    batch = make_batch(16)
    first = augmentation()(batch, seed=5)
    assert same(first, augmentation()(batch, seed=5))
    assert not same(first, augmentation()(batch, seed=6))
    assert not same(first, augmentation()(PairBatch(batch.lr, batch.hr, batch.index + 16), seed=5))


@every_augmentation
def test_splitting_the_batch_changes_nothing(augmentation):
    batch = make_batch(8)
    whole = augmentation()(batch, seed=5)
    halves = [augmentation()(part(batch, rows), seed=5) for rows in (slice(0, 2), slice(2, 8))]
    for image in ("lr", "hr"):
        # Matrix products of another size may round differently.
        together = torch.cat([getattr(half, image) for half in halves])
        assert torch.allclose(getattr(whole, image), together, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("augmentation", [a for a in ALL if a not in MIXING], ids=lambda a: a.__name__)
def test_order_of_the_batch_changes_nothing(augmentation):
    batch, order = make_batch(8), torch.tensor([3, 7, 0, 1, 6, 5, 2])
    whole, shuffled = augmentation()(batch, seed=5), augmentation()(part(batch, order), seed=5)
    assert torch.allclose(whole.hr[order], shuffled.hr, atol=ROUNDING, rtol=0)
    assert torch.allclose(whole.lr[order], shuffled.lr, atol=ROUNDING, rtol=0)


@every_augmentation
def test_probability_is_the_share_of_changed_samples(augmentation):
    batch = noise(3000)
    share = changed(batch, augmentation(probability=0.3)(batch, seed=5)).float().mean().item()
    expected = 1 - 0.7**2 if augmentation is RandomFlip else 0.3
    assert share == pytest.approx(expected, abs=4 * (0.25 / 3000) ** 0.5)
    assert same(batch, augmentation(probability=0.0)(batch, seed=5))
    assert changed(batch, augmentation(probability=1.0)(batch, seed=5)).all()


def test_flips_and_turns_reach_the_eight_symmetries_equally():
    sample = noise(1)
    batch = PairBatch(sample.lr.expand(4000, -1, -1, -1), sample.hr.expand(4000, -1, -1, -1), torch.arange(4000))
    after = Compose([RandomFlip(), RandomRotate90()], seed=1)(batch)
    states, counts = after.hr.flatten(1).unique(dim=0, return_counts=True)
    expected = [torch.rot90(image, k, (-2, -1)) for k in range(4) for image in (sample.hr[0], sample.hr[0].flip(-1))]
    assert {tuple(s.tolist()) for s in states} == {tuple(e.flatten().tolist()) for e in expected}
    assert (counts / 4000 - 1 / 8).abs().max() < 4 * (1 / 8 * 7 / 8 / 4000) ** 0.5


def test_permutations_are_the_five_others_equally():
    lr = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(3000, 3, 1, 1)
    after = RGBPermutation(probability=1.0)(PairBatch(lr, lr, torch.arange(3000)), seed=1)
    orders, counts = after.lr.flatten(1).unique(dim=0, return_counts=True)
    assert len(orders) == 5
    assert (counts / 3000 - 1 / 5).abs().max() < 4 * (1 / 5 * 4 / 5 / 3000) ** 0.5


def test_brightness_is_uniform_over_its_room():
    hr = torch.full((4000, 3, 2, 2), 0.9)
    after = Brightness(amount=0.2, probability=1.0)(PairBatch(hr, hr, torch.arange(4000)), seed=1)
    offset = after.hr[:, 0, 0, 0] - 0.9
    assert offset.min() == pytest.approx(-0.2, abs=1e-3)
    assert offset.max() == pytest.approx(0.1, abs=1e-3)
    assert offset.mean() == pytest.approx(-0.05, abs=4 * (0.3**2 / 12 / 4000) ** 0.5)


def test_contrast_keeps_the_mean_and_stops_at_black_and_white():
    hr = torch.tensor([0.2, 0.3, 0.7, 0.8]).view(1, 1, 2, 2).expand(4000, 3, 2, 2)
    after = Contrast(amount=0.9, probability=1.0)(PairBatch(hr, hr, torch.arange(4000)), seed=1)
    assert torch.allclose(after.hr.mean((1, 2, 3)), torch.tensor(0.5), atol=1e-6)
    gain = (after.hr[:, 0, 1, 1] - 0.5) / 0.3
    assert gain.min() == pytest.approx(0.1, abs=1e-3)
    assert gain.max() == pytest.approx(0.5 / 0.3, abs=1e-3)


def test_inversion_is_the_negative():
    batch = make_batch()
    assert same(Inversion(probability=1.0)(batch, seed=1), batch.with_images(1 - batch.lr, 1 - batch.hr))


def test_mixup_blends_neighbours_with_shares_of_the_beta_distribution():
    hr = (torch.arange(4000) % 2).float().view(-1, 1, 1, 1).expand(-1, 3, 1, 1)  # partners are 0 and 1
    after = Mixup(alpha=1.2, probability=1.0)(PairBatch(hr, hr, torch.arange(4000)), seed=1)
    own_share = 1 - (after.hr - hr).abs()[:, 0, 0, 0]
    assert own_share.mean() == pytest.approx(0.5, abs=0.02)
    assert own_share.var() == pytest.approx(1 / (4 * (2 * 1.2 + 1)), rel=0.05)  # variance of Beta(a, a)
    assert torch.corrcoef(torch.stack([own_share[::2], own_share[1::2]]))[0, 1].abs() < 4 / 2000**0.5


@pytest.mark.parametrize("augmentation", MIXING, ids=lambda a: a.__name__)
def test_the_odd_last_sample_has_no_partner(augmentation):
    batch = make_batch(5)
    after = augmentation(probability=1.0)(batch, seed=5)
    assert changed(batch, after).tolist() == [True] * 4 + [False]


def test_cutblur_shows_what_bicubic_can_hold():
    batch = make_batch(2, 64, 4)
    after = CutBlur(probability=1.0)(batch, seed=5)
    blurred = upscale(batch.lr, 4)
    touched = (after.hr - batch.hr).abs() > ROUNDING
    assert touched.any()
    assert torch.allclose(after.hr[touched], blurred[touched], atol=ROUNDING)


@pytest.mark.parametrize(("factor", "side", "scale"), [(0.75, 32, 4), (0.5, 32, 4), (0.6, 40, 4), (2 / 3, 48, 3)])
def test_scale_jitter_tiles_like_numpys_symmetric_padding(factor, side, scale):
    batch = make_batch(4, side, scale)
    after = ScaleJitter(factors=[factor], probability=1.0)(batch, seed=5)
    small = imresize(batch.hr, factor)
    kept = small.shape[-1] // scale * scale
    missing = [(0, 0), (0, 0), (0, side - kept), (0, side - kept)]
    expected = np.pad(small[..., :kept, :kept].numpy(), missing, mode="symmetric")
    assert np.allclose(after.hr.numpy(), expected, atol=ROUNDING)


def test_scale_jitter_draws_all_factors_equally():
    batch = noise(2000)
    jitter = {f: ScaleJitter(factors=[f], probability=1.0)(batch, seed=5).hr for f in (0.75, 0.5)}
    after = ScaleJitter(probability=1.0)(batch, seed=5).hr
    shares = [
        torch.isclose(after, one, atol=ROUNDING).flatten(1).all(1).float().mean().item() for one in jitter.values()
    ]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(0.5, abs=4 * 0.5 / 2000**0.5)


def test_two_of_a_kind_in_one_list_differ():
    batch = make_batch(64, 8, 2)
    both = Compose([Inversion(), Inversion()], seed=1)(batch)
    inverted = ((both.hr - batch.hr).abs() > ROUNDING).flatten(1).any(1)
    assert 16 < inverted.sum() < 48  # half of them; none if both decided alike
    assert same(both, Compose([Inversion(), Inversion()], seed=1)(batch))
    assert not same(both, Compose([Inversion(), Inversion()], seed=2)(batch))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomFlip(probability=1.5), "RandomFlip: probability is 1.5, expected a number from 0 to 1"),
        (lambda: Brightness(amount=-1), "Brightness: amount is -1, expected a number from 0 to 1"),
        (lambda: Mixup(alpha=0), "Mixup: alpha is 0, expected a positive number"),
        (lambda: ScaleJitter(factors=[]), r"ScaleJitter: factors are \[\], expected one or more numbers in \(0, 1\)"),
        (lambda: ScaleJitter(factors=[0.5, 1]), r"ScaleJitter: factors are \[0.5, 1\]"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_oblong_patches_cannot_be_turned():
    batch = PairBatch(torch.zeros(1, 3, 6, 8), torch.zeros(1, 3, 12, 16), torch.arange(1))
    with pytest.raises(ValueError, match=r"12 x 16 pixels .* cut square patches"):
        RandomRotate90()(batch, seed=1)
    assert same(batch, Compose([a() for a in ALL if a not in (RandomRotate90, Inversion)], seed=1)(batch))


def test_factors_too_small_for_the_patch_are_named():
    with pytest.raises(ValueError, match=r"factor 0.1 makes HR patches of 8 x 8 smaller than the scale 4"):
        ScaleJitter(factors=[0.1], probability=1.0)(make_batch(2, 8, 4), seed=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_does_the_same():
    batch = make_batch(8)
    compose = Compose([augmentation() for augmentation in ALL], seed=3)
    on_gpu = compose(PairBatch(batch.lr.cuda(), batch.hr.cuda(), batch.index.cuda()))
    assert torch.allclose(on_gpu.hr.cpu(), compose(batch).hr, atol=1e-5)
