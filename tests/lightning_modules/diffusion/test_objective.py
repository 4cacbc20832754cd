"""The loss term by term, by hand; which of them are computed, and whose gradient reaches the adapter."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from datamodules.bicubic import downscale, upscale
from datamodules.pair import PairBatch
from lightning_modules.diffusion.adaptation import LoRA, trainable_parameters
from lightning_modules.diffusion.codec import AutoencoderSpec
from lightning_modules.diffusion.latent_diffusion import Denoised
from lightning_modules.diffusion.objective import LossTerms, Objective

OFF = {"simple": 0.0, "representativeness": 0.0, "diversity": 0.0, "high_frequency": 0.0}
CLASSES, SCALE = 3, 2
LABELS = torch.tensor([0, 1, 1, 2])


def patches(step, side=8):
    """Busy ones: noise of full contrast, which no prediction of an untrained model comes near."""
    hr = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(step)).round()
    return PairBatch(downscale(hr, SCALE), hr, torch.arange(4) + 4 * step, label=LABELS)


def objective(diffusion, **terms):
    return Objective(LossTerms(**{**OFF, **terms}), CLASSES, diffusion.latent_shape, SCALE)


def step(module, diffusion, number=0):
    """Losses of one batch, and what they are of."""
    batch = patches(number, diffusion.side)
    denoised = diffusion.denoise(diffusion.codec.encode(batch.hr), LABELS, batch.index, seed=0, dropout=0.0)
    return module(denoised, batch, diffusion), denoised, batch


@pytest.fixture
def codec():
    """Untrained; scaled so that its latents hold more detail than predictions of an untrained model."""
    torch.manual_seed(0)
    codec = AutoencoderSpec("tiny", channels=8, stages=2).build(16).eval()
    codec.model.register_to_config(scaling_factor=100.0)
    return codec


@pytest.mark.parametrize(
    "on",
    [
        ["simple"],
        ["representativeness"],
        ["diversity"],
        ["high_frequency"],
        ["simple", "diversity"],
        ["representativeness", "high_frequency"],
        list(OFF),
    ],
)
def test_terms_that_are_switched_off_are_absent(tiny_diffusion, on):
    diffusion = tiny_diffusion(prediction="sample")
    module = objective(diffusion, **dict.fromkeys(on, 0.5))
    losses = step(module, diffusion)[0]
    assert list(losses) == on
    assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
    assert bool(module.state_dict()) == bool({"representativeness", "diversity"} & set(on))


def test_the_total_is_the_weighted_sum(tiny_diffusion):
    diffusion = tiny_diffusion(prediction="sample")
    weights = {"simple": 2.0, "representativeness": 0.5, "diversity": 0.25, "high_frequency": 3.0}
    module = objective(diffusion, **weights)
    losses = {name: torch.tensor(value) for name, value in zip(weights, (1.0, 10.0, 100.0, -7.0), strict=True)}
    assert module.total(losses).item() == 2 + 5 + 25 - 21
    del losses["diversity"]
    assert module.total(losses).item() == 2 + 5 - 21


def test_the_denoising_error_is_a_mean_or_weighted_by_min_snr(tiny_diffusion):
    diffusion = tiny_diffusion()
    losses, denoised, _ = step(objective(diffusion, simple=1.0), diffusion)
    torch.testing.assert_close(losses["simple"], denoised.error.mean())
    weighted = step(objective(diffusion, simple=1.0, min_snr=0.01), diffusion)[0]["simple"]
    a = torch.linspace(1e-4, 0.02, 1000).double().neg().add(1).cumprod(0)[denoised.timesteps]
    snr = a / (1 - a)
    expected = (denoised.error * snr.clamp(max=0.01) / snr).mean()
    torch.testing.assert_close(weighted.double(), expected, rtol=1e-4, atol=0)
    assert weighted < 0.9 * losses["simple"]


def test_minimax_terms_look_back_on_earlier_batches_of_the_class(tiny_diffusion):
    """1 - the least cosine to a real latent, and the greatest to a prediction; by sample, by class."""
    diffusion = tiny_diffusion(prediction="sample")
    module = objective(diffusion, representativeness=1.0, diversity=1.0)
    first, before, _ = step(module, diffusion, 0)
    assert [first[name].item() for name in ("representativeness", "diversity")] == [0.0, 0.0]
    losses, denoised, _ = step(module, diffusion, 1)

    def cosines(others):
        return F.cosine_similarity(denoised.predicted.flatten(1)[:, None], others.flatten(1)[None], dim=2)

    same = LABELS[:, None] == LABELS[None]
    farthest = cosines(before.clean).masked_fill(~same, 9).min(1).values
    nearest = cosines(before.predicted).masked_fill(~same, -9).max(1).values
    for name, each in (("representativeness", 1 - farthest), ("diversity", nearest)):
        by_class = torch.stack([each[label == LABELS].mean() for label in range(CLASSES)])
        torch.testing.assert_close(losses[name], by_class.mean())


def test_memories_survive_a_checkpoint(tiny_diffusion):
    diffusion = tiny_diffusion(prediction="sample")
    module = objective(diffusion, representativeness=1.0, diversity=1.0)
    step(module, diffusion, 0)
    resumed = objective(diffusion, representativeness=1.0, diversity=1.0)
    resumed.load_state_dict(module.state_dict())
    expected, found = step(module, diffusion, 1)[0], step(resumed, diffusion, 1)[0]
    assert expected["diversity"] != 0
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def lost(images):
    return (images - upscale(downscale(images, SCALE), SCALE)).square().mean((1, 2, 3))


@pytest.mark.parametrize("where", ["pixels", "latents"])
def test_detail_is_rewarded_up_to_the_real_patchs_and_less_under_noise(tiny_diffusion, codec, where):
    diffusion = tiny_diffusion(codec, prediction="sample")
    module = objective(diffusion, high_frequency=1.0, high_frequency_on=where)
    losses, denoised, batch = step(module, diffusion)
    pairs = {
        "pixels": (codec.decode(denoised.predicted), batch.hr),
        "latents": (denoised.predicted, codec.encode(batch.hr)),
    }
    predicted, real = map(lost, pairs[where])
    a = diffusion.process.alphas_cumprod[denoised.timesteps]
    torch.testing.assert_close(losses["high_frequency"], -(a * torch.minimum(predicted, real)).mean())
    assert losses["high_frequency"] < 0


@pytest.mark.parametrize("where", ["pixels", "latents"])
def test_detail_of_noise_is_no_reward(tiny_diffusion, where):
    """A prediction that has more than the real patch gets no gradient."""
    diffusion = tiny_diffusion(prediction="sample")
    batch = patches(0)
    batch = batch.with_images(batch.lr, 0.1 * batch.hr + 0.45)
    noisy = (5 * patches(1).hr).requires_grad_()
    denoised = Denoised(diffusion.codec.encode(batch.hr), noisy, torch.tensor([0, 10, 20, 30]), torch.zeros(4))
    module = objective(diffusion, high_frequency=1.0, high_frequency_on=where)
    losses = module(denoised, batch, diffusion)
    losses["high_frequency"].backward()
    assert noisy.grad.eq(0).all()


@pytest.mark.parametrize(
    ("term", "where"),
    [
        ("simple", "pixels"),
        ("representativeness", "pixels"),
        ("diversity", "pixels"),
        ("high_frequency", "pixels"),
        ("high_frequency", "latents"),
    ],
)
@pytest.mark.parametrize("latent", [False, True], ids=["pixel space", "autoencoder"])
def test_the_gradient_of_each_term_reaches_the_adapter_and_no_other_weight(tiny_diffusion, codec, term, where, latent):
    """The published high-frequency term has none: it is of the encoded real patch."""
    diffusion = tiny_diffusion(codec if latent else None, prediction="sample")
    diffusion.codec.requires_grad_(False)
    LoRA(rank=2).apply(diffusion.denoiser)
    module = objective(diffusion, **{term: 1.0}, high_frequency_on=where)
    if term in {"representativeness", "diversity"}:
        step(module, diffusion, 0)
    losses = step(module, diffusion, 1)[0]
    module.total(losses).backward()
    factors = {name: weight for name, weight in trainable_parameters(diffusion.denoiser).items() if "lora_B" in name}
    assert len(factors) == 12
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in factors.values())
    assert all(weight.grad is None for weight in diffusion.parameters() if not weight.requires_grad)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"diversity": -1.0}, r"model\.losses\.diversity is -1\.0; expected 0 \(off\) or more"),
        ({"simple": float("nan")}, r"model\.losses\.simple is nan"),
        ({"high_frequency": float("inf")}, r"model\.losses\.high_frequency is inf"),
        (OFF, "only weights of 0, which train nothing"),
        ({"memory": 0}, "memory 0 and min_snr None"),
        ({"min_snr": 0.0}, r"min_snr 0\.0"),
        ({"min_snr": float("nan")}, "min_snr nan"),
    ],
)
def test_weights_out_of_range_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        LossTerms(**terms)
