"""From requests to pixels: each once, from the cache the second time, and alike in every batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.randomness import generators
from lightning_modules.diffusion.conditioning import condition_on_features
from lightning_modules.diffusion.patch_sampler import PatchSampler, conditions, identity, starts
from lightning_modules.diffusion.sample_cache import SampleCache
from lightning_modules.diffusion.sampling import Sampler, sample
from lightning_modules.requests import Request

GUIDED = Sampler(steps=3, guidance=2.0)
CPU = torch.device("cpu")
REQUESTS = [Request(0, 0, 1), Request(0, 1, 0), Request(2, 0, 3)]


@pytest.fixture
def sampler(tiny_diffusion, real_patches, tmp_path):
    """Makes one with an empty cache of its own, unless it is named."""

    def make(how=GUIDED, cache="cache", seed=5):
        made = SampleCache(tmp_path / cache, {"of": "this test"})
        return PatchSampler(tiny_diffusion(), how, real_patches([0, 0, 1, 2]), seed, made)

    return make


def alike(some, others):
    return all(np.abs(a.astype(int) - b.astype(int)).max() <= 1 for a, b in zip(some, others, strict=True))


def test_pixels_are_the_decoded_samples_of_each_requests_own_noise(tiny_diffusion, sampler):
    """Noise by class and number, rounding to the nearest grey level."""
    noises = [generators(derive_seed(5, one.label), "sample", [one.number])[0] for one in REQUESTS]
    latents = sample(tiny_diffusion(), GUIDED, torch.tensor([0, 0, 2]), noises)
    expected = ((latents + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    for pixels, exact in zip(sampler()(REQUESTS, CPU), expected, strict=True):
        assert pixels.dtype == np.uint8
        assert pixels.shape == (8, 8, 3)
        assert np.abs(pixels - exact).max() < 0.501


def test_what_was_sampled_before_is_read(sampler):
    first = sampler(cache="shared")
    before = first(REQUESTS[:2], CPU)
    assert first.made == {"sampled": 2, "from_cache": 0}
    second = sampler(cache="shared")
    after = second([REQUESTS[2], *REQUESTS[:2]], CPU)
    assert second.made == {"sampled": 1, "from_cache": 2}
    assert all(np.array_equal(a, b) for a, b in zip(after[1:], before, strict=True))
    assert second.seconds_before > 0
    assert first.seconds_before == 0


@pytest.mark.parametrize("how", [Sampler(steps=3), Sampler("ddpm", 3, 1.0), Sampler("dpmsolver++", 4, 2.0, 0.5)])
def test_batches_do_not_matter(sampler, how):
    together = sampler(how, "together")(REQUESTS, CPU)
    alone = [sampler(how, "alone")([request], CPU)[0] for request in reversed(REQUESTS)]
    assert alike(together, alone[::-1])
    other = sampler(how, "other seed", seed=6)(REQUESTS, CPU)
    assert not alike(together, other)


def test_starts_are_the_real_patches_of_the_requests(tiny_diffusion, real_patches, sampler):
    real, diffusion = real_patches([0, 0, 1, 2]), tiny_diffusion()
    assert starts(real, REQUESTS, diffusion, Sampler(strength=1.0), CPU) is None
    latents = starts(real, REQUESTS, diffusion, Sampler(strength=0.5), CPU)
    photographs = np.stack([real.store.hr(number) for number in (1, 0, 3)]).transpose(0, 3, 1, 2)
    torch.testing.assert_close(latents, torch.from_numpy(photographs / 127.5 - 1).float())
    near = sampler(Sampler(steps=100, guidance=1.0, strength=1e-6))(REQUESTS, CPU)
    distance = np.abs(np.stack(near).transpose(0, 3, 1, 2).astype(int) - photographs.astype(int)).mean()
    assert distance < 8  # of 255


def test_the_condition_is_the_class_or_the_features_of_the_real_patch(real_patches):
    assert conditions(real_patches([0, 0, 1, 2]), REQUESTS, CPU).tolist() == [0, 0, 2]
    features = np.arange(20, dtype=np.float32).reshape(4, 5)
    found = conditions(real_patches([0, 0, 1, 2], features), REQUESTS, CPU)
    assert np.array_equal(found.numpy(), features[[1, 0, 3]])


def test_features_condition_samples(tiny_diffusion, real_patches, tmp_path):
    def pixels(features, name):
        diffusion = tiny_diffusion()
        condition_on_features(diffusion.denoiser, 5)
        for block in diffusion.denoiser.transformer_blocks:
            torch.nn.init.eye_(block.norm1.emb.class_embedder.projection.weight)
        cache = SampleCache(tmp_path / name, {})
        return PatchSampler(diffusion, Sampler(steps=3), real_patches([0, 0, 1, 2], features), 5, cache)(REQUESTS, CPU)

    features = np.eye(4, 5, dtype=np.float32)
    changed = features.copy()
    changed[3] = features[0]
    before, after = pixels(features, "before"), pixels(changed, "after")
    assert alike(before[:2], after[:2])
    assert not alike(before[2:], after[2:])


def test_samples_that_are_not_finite_are_refused_and_not_kept(tiny_diffusion, real_patches, tmp_path):
    diffusion = tiny_diffusion()
    with torch.no_grad():
        diffusion.denoiser.proj_out_2.bias.fill_(float("nan"))
    cache = SampleCache(tmp_path, {})
    with pytest.raises(ValueError, match=r"samples are not finite; use trainer\.precision"):
        PatchSampler(diffusion, Sampler(steps=2), real_patches([0, 0, 1, 2]), 0, cache)(REQUESTS, CPU)
    assert not cache.folder.exists()


def test_everything_that_decides_samples_is_in_their_identity():
    base = identity(Sampler(), 0, "weights", None, "32-true")
    others = [
        identity(Sampler("ddpm"), 0, "weights", None, "32-true"),
        identity(Sampler(steps=49), 0, "weights", None, "32-true"),
        identity(Sampler(guidance=3.0), 0, "weights", None, "32-true"),
        identity(Sampler(strength=0.5), 0, "weights", None, "32-true"),
        identity(Sampler(), 1, "weights", None, "32-true"),
        identity(Sampler(), 0, "others", None, "32-true"),
        identity(Sampler(), 0, "weights", "patches", "32-true"),
        identity(Sampler(), 0, "weights", None, "bf16-mixed"),
    ]
    assert all(other != base for other in others)
    assert identity(Sampler(), 0, "weights", None, "32-true") == base
