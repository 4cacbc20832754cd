"""The noise process against diffusers' own schedulers, and against the formulas written out."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.diffusion.process import PREDICTIONS, NoiseProcess, scheduler_config

SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2"]
LEVELS = torch.tensor([0, 1, 250, 500, 750, 900])


@pytest.fixture(scope="module")
def latents():
    """Clean ones and noise, (6, 4, 8, 8)."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, 8, 8, generator=draw), torch.randn(6, 4, 8, 8, generator=draw)


def build(prediction="epsilon", schedule="linear", zero_snr=False):
    return NoiseProcess(scheduler_config(prediction, schedule, zero_snr, clip=False))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_noise_and_velocity_are_those_of_diffusers(latents, schedule, zero_snr):
    from diffusers import DDIMScheduler

    clean, noise = latents
    timesteps = torch.tensor([0, 1, 250, 500, 998, 999])
    process = build("v_prediction", schedule, zero_snr)
    reference = DDIMScheduler.from_config(process.config)
    noisy = process.add_noise(clean, noise, timesteps)
    torch.testing.assert_close(noisy, reference.add_noise(clean, noise, timesteps), rtol=0, atol=1e-6)
    velocity = reference.get_velocity(clean, noise, timesteps)
    torch.testing.assert_close(process.target(clean, noise, timesteps), velocity, rtol=0, atol=1e-6)
    assert process.steps == 1000
    assert (process.alphas_cumprod.diff() < 0).all()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_target_amounts_to_the_clean_latents(latents, prediction, schedule):
    clean, noise = latents
    process = build(prediction, schedule)
    noisy = process.add_noise(clean, noise, LEVELS)
    back = process.clean(process.target(clean, noise, LEVELS), noisy, LEVELS)
    torch.testing.assert_close(back, clean, rtol=0, atol=2e-5)  # rounding of noise, divided by sqrt(a) >= 0.02


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_any_output_amounts_to_what_diffusers_makes_of_it(latents, prediction, schedule):
    """`pred_original_sample` of a DDIM step."""
    from diffusers import DDIMScheduler

    output, noisy = latents
    process = build(prediction, schedule)
    reference = DDIMScheduler.from_config(process.config)
    reference.set_timesteps(1000)
    steps = [reference.step(o, t, n).pred_original_sample for o, n, t in zip(output, noisy, LEVELS, strict=True)]
    torch.testing.assert_close(process.clean(output, noisy, LEVELS), torch.stack(steps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_without_signal_the_clean_latents_are_still_what_was_to_be_predicted(latents, prediction):
    clean, noise = latents
    process = build(prediction, zero_snr=True)
    last = torch.full((6,), 999)
    noisy = process.add_noise(clean, noise, last)
    assert torch.equal(noisy, noise)
    assert process.meaningful(last).eq(0).all()
    target = process.target(clean, noise, last)
    assert torch.equal(target, clean if prediction == "sample" else -clean)
    assert torch.equal(process.clean(target, noisy, last), clean)
    assert process.min_snr_weight(last, 5.0).eq(0).all()  # min(0, gamma), over 0 + 1 for v


def test_without_signal_noise_tells_nothing_and_nothing_is_infinite(latents):
    clean, noise = latents
    process, last = build("epsilon", zero_snr=True), torch.full((6,), 999)
    assert process.clean(clean, noise, last).isfinite().all()
    assert process.min_snr_weight(last, 5.0).isfinite().all()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weights_are_the_papers(prediction):
    """arXiv 2303.09556, section 3.4, written out in float64: SNR = a / (1 - a)."""
    process, timesteps = build(prediction), torch.arange(1000)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    a = (1 - betas).cumprod(0)
    snr = a / (1 - a)
    capped = torch.minimum(snr, torch.tensor(5.0, dtype=torch.float64))
    expected = {"epsilon": capped / snr, "v_prediction": capped / (snr + 1), "sample": capped}[prediction]
    torch.testing.assert_close(process.min_snr_weight(timesteps, 5.0).double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_weighted_errors_are_one_loss_whatever_is_predicted(latents, prediction):
    """min(SNR, gamma) times the error of the clean latent: what the three weights are derived from."""
    clean, noise = latents
    process = build(prediction)
    noisy, target = process.add_noise(clean, noise, LEVELS), process.target(clean, noise, LEVELS)
    output = target + 0.1 * noise.flip(0)
    error = (output - target).square().mean((1, 2, 3))
    in_clean_space = (process.clean(output, noisy, LEVELS) - clean).square().mean((1, 2, 3))
    a = process.alphas_cumprod[LEVELS]
    expected = (a / (1 - a)).clamp(max=5.0) * in_clean_space
    torch.testing.assert_close(process.min_snr_weight(LEVELS, 5.0) * error, expected, rtol=1e-3, atol=0)


def test_how_much_shows_is_the_share_of_the_signals_variance():
    process = build()
    assert torch.equal(process.meaningful(torch.tensor([0, 999])), process.alphas_cumprod[[0, 999]])
    assert 0.999 < process.meaningful(torch.tensor([0])) < 1
    assert 0 < process.meaningful(torch.tensor([999])) < 1e-4


def test_levels_are_no_weights():
    assert not build().state_dict()


def test_every_sampler_of_diffusers_takes_the_configuration():
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    config = scheduler_config("v_prediction", "squaredcos_cap_v2", zero_snr=True, clip=True)
    for scheduler in (DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler):
        built = scheduler.from_config(config).config
        assert {key: built[key] for key in config if key in built} == {
            key: config[key] for key in config if key in built
        }
        assert {"prediction_type", "beta_schedule", "rescale_betas_zero_snr", "timestep_spacing"} <= built.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'; expected one of epsilon"),
        ({"beta_schedule": "straight"}, "configuration cannot be used: straight"),
    ],
)
def test_unknown_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        NoiseProcess({**scheduler_config("epsilon", "linear", zero_snr=False, clip=False), **change})


def test_another_kind_of_process_is_refused():
    """Flow matching, as Stable Diffusion 3 has it: its configuration would pass as a linear schedule otherwise."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no beta_schedule"):
        NoiseProcess({**FlowMatchEulerDiscreteScheduler().config, "_class_name": "FlowMatchEulerDiscreteScheduler"})
