"""Sampling against diffusers' pipeline and loops over its schedulers, and against a denoiser that knows the patch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datamodules.randomness import generators
from lightning_modules.diffusion.codec import AutoencoderSpec, PixelSpace
from lightning_modules.diffusion.conditioning import condition_on_features
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion
from lightning_modules.diffusion.process import NoiseProcess, scheduler_config
from lightning_modules.diffusion.sampling import Sampler, grid_samples, sample

METHODS = {"ddim": "DDIMScheduler", "dpmsolver++": "DPMSolverMultistepScheduler", "ddpm": "DDPMScheduler"}
LABELS = torch.tensor([1, 7, 9])


def noises(numbers=(5, 6, 9)):
    return generators(3, "sample", numbers)


def reals():
    """Clean latents of three patches in pixel space."""
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(4)) * 2 - 1


def decoded(diffusion, latents):
    return diffusion.codec.decode(latents).clamp(0, 1)


@pytest.mark.parametrize("method", ["ddim", "dpmsolver++"])
@pytest.mark.parametrize("out_channels", [4, 8], ids=["plain", "learned variance"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_images_are_those_of_diffusers_pipeline(tiny_diffusion, method, out_channels, guidance):
    """DiTPipeline, whose null class is always number 1000, with the scaling factor of Stable Diffusion."""
    import diffusers

    codec = AutoencoderSpec("kl", channels=8, stages=2).build(16).eval()
    codec.model.register_to_config(scaling_factor=0.18215)
    diffusion = tiny_diffusion(codec, num_embeds_ada_norm=1000, out_channels=out_channels)
    scheduler = getattr(diffusers, METHODS[method]).from_config(diffusion.process.config)
    pipeline = diffusers.DiTPipeline(diffusion.denoiser, codec.model, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    labels = [1, 7, 999]
    expected = pipeline(
        labels, guidance_scale=guidance, generator=noises(), num_inference_steps=6, output_type="pt"
    ).images
    latents = sample(diffusion, Sampler(method, 6, guidance), torch.tensor(labels), noises())
    assert expected.std() > 0.05
    torch.testing.assert_close(decoded(diffusion, latents), expected, rtol=0, atol=1e-5)


def reference(diffusion, method, steps, strength, label, noise, start):
    """One sample by a loop over diffusers' scheduler, begun as its image-to-image pipelines do."""
    import diffusers

    scheduler = getattr(diffusers, METHODS[method]).from_config(diffusion.process.config)
    scheduler.set_timesteps(steps)
    latents = torch.randn(1, 3, 8, 8, generator=noise)
    skipped = steps - int(steps * strength)
    if start is not None:
        latents = scheduler.add_noise(start[None], latents, scheduler.timesteps[skipped : skipped + 1])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    for t in scheduler.timesteps[skipped:]:
        output = diffusion.denoiser(latents, timestep=t[None], class_labels=label[None]).sample
        options = {"generator": noise} if method == "ddpm" else {}
        latents = scheduler.step(output, t, latents, **options).prev_sample
    return latents[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strength", [1.0, 0.5])
@torch.no_grad()
def test_samples_are_those_of_a_loop_over_diffusers_scheduler(tiny_diffusion, method, strength):
    diffusion = tiny_diffusion(prediction="v_prediction")
    starts = reals() if strength < 1 else None
    samples = sample(diffusion, Sampler(method, 6, 1.0, strength), LABELS, noises(), starts)
    for row, noise in enumerate(noises()):
        start = None if starts is None else starts[row]
        expected = reference(diffusion, method, 6, strength, LABELS[row], noise, start)
        torch.testing.assert_close(samples[row], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_an_image_is_the_same_whatever_its_batch(tiny_diffusion, method, strength):
    diffusion, sampler = tiny_diffusion(), Sampler(method, 5, 2.0, strength)
    starts = reals() if strength < 1 else None

    def images(order):
        start = None if starts is None else starts[order]
        torch.manual_seed(len(order))
        latents = sample(diffusion, sampler, LABELS[order], [noises()[row] for row in order], start)
        return decoded(diffusion, latents)

    together = images([0, 1, 2])
    for order in ([2, 0, 1], [1], [0, 2]):
        torch.testing.assert_close(images(order), together[order], rtol=0, atol=1e-5)
        levels = (images(order) * 255).round() - (together[order] * 255).round()
        assert levels.abs().max() <= 1


def test_seeds_and_classes_each_give_other_images(tiny_diffusion):
    diffusion, sampler = tiny_diffusion(), Sampler(steps=4, guidance=1.0)
    drawn = sample(diffusion, sampler, torch.tensor([1, 1, 2]), generators(0, "sample", [0, 1, 0]))
    assert not torch.allclose(drawn[0], drawn[1], atol=0.1)
    assert not torch.allclose(drawn[0], drawn[2], atol=1e-3)


class Oracle(nn.Module):
    """A denoiser that knows the clean latents; formulas of DDPM and of progressive distillation."""

    def __init__(self, clean, prediction, alphas):
        super().__init__()
        self.clean, self.prediction, self.alphas = clean, prediction, alphas
        self.config = type("Config", (), {"in_channels": 3, "sample_size": 8})
        self.calls = 0

    def forward(self, noisy, timestep, class_labels):
        self.calls += 1
        a = self.alphas[timestep][:, None, None, None]
        noise = (noisy - a.sqrt() * self.clean) / (1 - a).sqrt()
        v = a.sqrt() * noise - (1 - a).sqrt() * self.clean
        output = {"epsilon": noise, "v_prediction": v, "sample": self.clean}[self.prediction]
        return type("Output", (), {"sample": output})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(
    ("prediction", "zero_snr"),
    [("epsilon", False), ("v_prediction", False), ("v_prediction", True), ("sample", False), ("sample", True)],
)
def test_whoever_knows_the_patch_samples_it(method, schedule, prediction, zero_snr):
    process = NoiseProcess(scheduler_config(prediction, schedule, zero_snr, clip=False))
    diffusion = LatentDiffusion(PixelSpace(), Oracle(reals(), prediction, process.alphas_cumprod), process)
    samples = sample(diffusion, Sampler(method, 5, 1.0), LABELS, noises())
    torch.testing.assert_close(samples, reals(), rtol=0, atol=1e-4)
    assert diffusion.denoiser.calls == 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("strength", "calls"), [(0.01, 1), (0.1, 1), (0.3, 3), (0.5, 5), (0.96, 10), (1.0, 10)])
def test_strength_is_the_share_of_the_steps_that_is_run(tiny_diffusion, method, strength, calls):
    diffusion, run = tiny_diffusion(), []
    diffusion.denoiser.register_forward_pre_hook(lambda *_: run.append(1))
    sample(diffusion, Sampler(method, 10, 1.0, strength), LABELS, noises(), reals())
    assert len(run) == calls


@pytest.mark.parametrize("method", METHODS)
def test_with_less_strength_samples_stay_closer_to_the_real_patch(tiny_diffusion, method):
    diffusion = tiny_diffusion()
    distances = [
        (sample(diffusion, Sampler(method, 50, 1.0, strength), LABELS, noises(), reals()) - reals()).abs().mean()
        for strength in (1e-6, 0.3, 1.0)
    ]
    assert distances[0] < 0.1  # the last level of 50 has 2 % of the noise's variance at most
    assert distances[0] < distances[1] < distances[2]


def test_clipping_of_pixels_is_the_schedulers(tiny_diffusion):
    """A configuration for pixels keeps every predicted clean latent within [-1, 1], so also the last."""
    diffusion, largest = tiny_diffusion(), {}
    for clip in (True, False):
        diffusion.process = NoiseProcess(scheduler_config("epsilon", "linear", zero_snr=False, clip=clip))
        largest[clip] = sample(diffusion, Sampler("ddim", 5, 1.0), LABELS, noises()).abs().max()
    assert largest[True] <= 1 < largest[False]


def test_guidance_without_a_null_class_is_refused(tiny_diffusion, no_null):
    diffusion = no_null(tiny_diffusion())
    with pytest.raises(ValueError, match=r"no null class.*guidance"):
        sample(diffusion, Sampler(steps=2, guidance=2.0), LABELS, noises())
    assert sample(diffusion, Sampler(steps=2, guidance=1.0), LABELS, noises()).isfinite().all()


def test_features_guide_away_from_zeros(tiny_diffusion):
    """One DDIM step from the last level, written out."""
    diffusion, features = tiny_diffusion(prediction="sample"), torch.eye(3, 5)
    condition_on_features(diffusion.denoiser, 5)
    nn.init.normal_(diffusion.denoiser.transformer_blocks[0].norm1.emb.class_embedder.projection.weight)
    samples = sample(diffusion, Sampler("ddim", 1, 3.0), features, noises())
    noise = torch.stack([torch.randn(3, 8, 8, generator=one) for one in noises()])
    with torch.no_grad():
        guided, free = (diffusion(noise, torch.full((3,), 999), each) for each in (features, torch.zeros(3, 5)))
    assert not torch.allclose(guided, free, atol=1e-2)
    torch.testing.assert_close(samples, free + 3 * (guided - free), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_configuration_with_learned_variance_samples_without_it(tiny_diffusion, method):
    """The published DiT predicts variances; they are left out, and those of the schedule are used."""
    diffusion = tiny_diffusion(out_channels=6)
    expected = sample(diffusion, Sampler(method, 3, 2.0), LABELS, noises())
    diffusion.process.config["variance_type"] = "learned_range"
    assert torch.equal(sample(diffusion, Sampler(method, 3, 2.0), LABELS, noises()), expected)


def test_the_global_generator_is_neither_used_nor_moved(tiny_diffusion):
    diffusion = tiny_diffusion()
    torch.manual_seed(0)
    first = sample(diffusion, Sampler("ddpm", 2), LABELS, noises())
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), after)
    assert torch.equal(sample(diffusion, Sampler("ddpm", 2), LABELS, noises()), first)


def test_pictures_of_training_are_of_the_same_noise_each_time(tiny_diffusion):
    diffusion, sampler = tiny_diffusion(), Sampler("ddpm", 2, 1.0)
    pictures = grid_samples(diffusion, sampler, LABELS, 2)
    assert torch.equal(pictures, grid_samples(diffusion, sampler, LABELS, 2))
    torch.testing.assert_close(grid_samples(diffusion, sampler, LABELS[:1], 2), pictures[:1], rtol=0, atol=1e-5)
    assert pictures.shape == (3, 3, 8, 8)
    assert pictures.min() >= 0
    assert pictures.max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps 0 and guidance 4; expected at least 1"),
        ({"guidance": 0.5}, "guidance 0.5; expected at least 1"),
        ({"strength": 0.0}, "strength is 0; expected a share above 0"),
        ({"strength": 1.5}, "strength is 1.5"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"guidance": float("nan")}, "guidance nan"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**change)


@pytest.mark.parametrize("method", METHODS)
def test_more_steps_than_noise_levels_are_refused(tiny_diffusion, method):
    with pytest.raises(ValueError, match=r"model\.sampler\.steps is 1001; the model has 1000 noise levels"):
        Sampler(method, 1001).scheduler(tiny_diffusion().process.config)
