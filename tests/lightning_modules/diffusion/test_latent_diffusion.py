"""One step of denoising, sample by sample, against diffusers' scheduler and the model called by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.diffusion.codec import AutoencoderSpec
from lightning_modules.diffusion.conditioning import condition_on_features, null_condition
from lightning_modules.diffusion.latent_diffusion import held_out_patches


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def batch():
    """Clean latents, labels and running numbers of six samples."""
    return drawn(0, 6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 4, 5]), torch.arange(100, 106)


def test_sizes_are_those_of_denoiser_and_codec(tiny_diffusion):
    latent = tiny_diffusion(AutoencoderSpec("tiny", channels=4, stages=3, latent_channels=5).build(32))
    assert (latent.side, latent.latent_shape) == (32, (5, 8, 8))
    pixels = tiny_diffusion()
    assert (pixels.side, pixels.latent_shape) == (8, (3, 8, 8))


def test_a_denoiser_for_other_latents_is_refused(tiny_diffusion):
    with pytest.raises(ValueError, match="works on 4 channels but its autoencoder's latents have 3"):
        tiny_diffusion(in_channels=4)


def test_of_learned_variance_the_first_half_counts(tiny_diffusion):
    diffusion = tiny_diffusion(out_channels=6)
    noisy, timesteps, labels = drawn(0, 2, 3, 8, 8), torch.tensor([5, 900]), torch.tensor([0, 9])
    whole = diffusion.denoiser(noisy, timestep=timesteps, class_labels=labels).sample
    assert whole.shape == (2, 6, 8, 8)
    assert torch.equal(diffusion(noisy, timesteps, labels), whole[:, :3])


def test_predictions_are_float32_under_autocast(tiny_diffusion):
    diffusion = tiny_diffusion()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = diffusion(drawn(0, 2, 3, 8, 8), torch.tensor([5, 900]), torch.tensor([0, 9]))
    assert output.dtype == torch.float32


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_step_is_that_of_diffusers_training_scripts(tiny_diffusion, batch, prediction, monkeypatch):
    """add_noise and get_velocity of DDPMScheduler; the noise and the level are taken from what the model was given."""
    from diffusers import DDPMScheduler

    diffusion, (clean, labels, numbers) = tiny_diffusion(prediction=prediction), batch
    given = {}
    diffusion.denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: given.update(noisy=args[0], **kwargs), with_kwargs=True
    )
    denoised = diffusion.denoise(clean, labels, numbers, seed=1, dropout=0.0)

    reference, timesteps = DDPMScheduler.from_config(diffusion.process.config), denoised.timesteps
    a = reference.alphas_cumprod[timesteps][:, None, None, None]
    noise = (given["noisy"] - a.sqrt() * clean) / (1 - a).sqrt()
    assert torch.equal(given["timestep"], timesteps)
    assert torch.equal(given["class_labels"], labels)
    assert abs(noise.mean()) < 0.15
    assert abs(noise.std() - 1) < 0.15

    target = {"epsilon": noise, "sample": clean, "v_prediction": reference.get_velocity(clean, noise, timesteps)}
    output = diffusion(given["noisy"], timesteps, labels)
    torch.testing.assert_close(
        denoised.error, (output - target[prediction]).square().mean((1, 2, 3)), rtol=1e-4, atol=0
    )
    steps = zip(output, timesteps, given["noisy"], strict=True)
    predicted = torch.stack([reference.step(o, t, x).pred_original_sample for o, t, x in steps])
    torch.testing.assert_close(denoised.predicted, predicted, rtol=1e-4, atol=1e-4)
    assert torch.equal(denoised.clean, clean)


def test_a_sample_is_denoised_alike_whatever_lies_beside_it(tiny_diffusion, batch):
    """So that processes and batch sizes do not matter, and a resumed run goes on exactly."""
    diffusion, (clean, labels, numbers) = tiny_diffusion(), batch
    whole = diffusion.denoise(clean, labels, numbers, seed=1, dropout=0.5)
    order = torch.tensor([4, 0])
    torch.manual_seed(99)
    part = diffusion.denoise(clean[order], labels[order], numbers[order], seed=1, dropout=0.5)
    assert torch.equal(part.timesteps, whole.timesteps[order])
    torch.testing.assert_close(part.predicted, whole.predicted[order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(part.error, whole.error[order])
    other = diffusion.denoise(clean, labels, numbers, seed=2, dropout=0.5)
    assert not torch.equal(other.timesteps, whole.timesteps)


class Recorder(torch.nn.Module):
    """Stands in for a model call: notes what it is conditioned on."""

    def __init__(self, diffusion):
        super().__init__()
        self.config, self.transformer_blocks = diffusion.denoiser.config, diffusion.denoiser.transformer_blocks
        self.seen = []

    def forward(self, noisy, timestep, class_labels):
        self.seen.append(class_labels)
        return type("Output", (), {"sample": torch.zeros_like(noisy)})


def test_levels_are_uniform_and_conditions_are_dropped_at_the_rate_asked_for(tiny_diffusion):
    """Chi-square of ten bins below its 0.9999 quantile (33.7 at 9 degrees of freedom); dropped within 4 sigma."""
    diffusion = tiny_diffusion(sample_size=2)
    diffusion.denoiser = Recorder(diffusion)
    numbers = torch.arange(4000)
    denoised = diffusion.denoise(torch.zeros(4000, 3, 2, 2), numbers % 7, numbers, seed=3, dropout=0.2)
    counts = denoised.timesteps.div(100, rounding_mode="floor").bincount(minlength=10)
    assert denoised.timesteps.min() >= 0
    assert len(counts) == 10
    assert ((counts - 400) ** 2 / 400).sum() < 33.7

    seen = diffusion.denoiser.seen[0]
    dropped = seen == 10
    assert abs(dropped.double().mean() - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5
    assert torch.equal(seen[~dropped], (numbers % 7)[~dropped])
    levels = denoised.timesteps.double()
    assert abs(np.corrcoef(levels, dropped.double())[0, 1]) < 4 / 4000**0.5


def test_features_are_dropped_to_the_null_condition(tiny_diffusion):
    diffusion = tiny_diffusion()
    condition_on_features(diffusion.denoiser, 5)
    diffusion.denoiser = Recorder(diffusion)
    features, numbers = drawn(0, 40, 5), torch.arange(40)
    diffusion.denoise(torch.zeros(40, 3, 8, 8), features, numbers, seed=0, dropout=0.5)
    seen = diffusion.denoiser.seen[0]
    dropped = (seen == 0).all(1)
    assert 5 < dropped.sum() < 35
    assert torch.equal(seen[~dropped], features[~dropped])


def test_without_null_class_nothing_can_be_dropped(tiny_diffusion, no_null, batch):
    diffusion, (clean, labels, numbers) = no_null(tiny_diffusion()), batch
    with pytest.raises(ValueError, match="no null class"):
        diffusion.denoise(clean, labels, numbers, seed=0, dropout=0.1)
    assert diffusion.denoise(clean, labels, numbers, seed=0, dropout=0.0).error.isfinite().all()


def test_gradients_reach_the_denoiser(tiny_diffusion, batch):
    diffusion, (clean, labels, numbers) = tiny_diffusion(), batch
    diffusion.denoise(clean, labels, numbers, seed=0, dropout=0.1).predicted.square().mean().backward()
    assert all(parameter.grad is not None for parameter in diffusion.denoiser.parameters())


def test_held_out_errors_are_always_of_the_same_noise(tiny_diffusion, batch):
    diffusion, (clean, _, _) = tiny_diffusion(), batch
    numbers = torch.arange(6)
    whole = diffusion.held_out_error(clean, numbers)
    torch.manual_seed(99)
    torch.testing.assert_close(diffusion.held_out_error(clean[[5, 1]], numbers[[5, 1]]), whole[[5, 1]])


def test_held_out_patches_are_denoised_at_eight_levels_under_the_null_class(tiny_diffusion, no_null):
    """The middles of eighths of 1000 levels; the second image begins with the second."""
    diffusion = tiny_diffusion()
    expected = [62, 187, 312, 437, 562, 687, 812, 937, 187, 312, 437, 562, 687, 812, 937, 62]
    levels = []
    diffusion.denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: levels.append((kwargs["timestep"], kwargs["class_labels"])), with_kwargs=True
    )
    clean, numbers = drawn(0, 16, 3, 8, 8), torch.arange(16)
    diffusion.held_out_error(clean, numbers)
    no_null(diffusion).held_out_error(clean, numbers)
    assert [timesteps.tolist() for timesteps, _ in levels] == [expected, expected]
    assert torch.equal(levels[0][1], null_condition(tiny_diffusion().denoiser, numbers))
    assert levels[1][1].eq(0).all()


def test_held_out_patches_lie_on_a_grid():
    images = torch.arange(2 * 20 * 27.0).reshape(2, 1, 20, 27).expand(2, 3, 20, 27)
    corners = [(image, top, left) for image in range(2) for top in (0, 8) for left in (0, 8, 16)]
    every = torch.stack([images[image, :, top : top + 8, left : left + 8] for image, top, left in corners])
    assert torch.equal(held_out_patches(images, 8, most=99), every)
    assert torch.equal(held_out_patches(images, 8, most=3), every[[0, 6, 11]])  # 5.5 rounds to even
    assert held_out_patches(images, 8).shape == (8, 3, 8, 8)
    assert held_out_patches(images, 21).shape == (0, 3, 21, 21)
    assert torch.equal(held_out_patches(images[:1, :, :20, :20], 20), images[:1, :, :20, :20])
