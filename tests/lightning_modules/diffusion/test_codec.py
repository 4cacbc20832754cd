"""Codecs against calls of diffusers' autoencoders written out, and divergences of torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lightning_modules.diffusion.codec import Autoencoder, AutoencoderSpec, PixelSpace

SD_SCALE = 0.18215
"""Of Stable Diffusion's autoencoder."""


def drawn(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def kl():
    """Makes an AutoencoderKL of two stages as the hub's are configured."""

    def make(**config):
        torch.manual_seed(0)
        codec = AutoencoderSpec("kl", channels=8, stages=2).build(16).eval()
        codec.model.register_to_config(**{"scaling_factor": SD_SCALE, **config})
        return codec

    return make


def test_pixel_space_spans_minus_one_to_one_and_back():
    pixels, codec = drawn(2, 3, 8, 8), PixelSpace()
    latents = codec.encode(pixels)
    assert torch.equal(codec.encode(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(codec.decode(latents), pixels)
    assert latents.shape == (2, codec.channels, 8 // codec.factor, 8 // codec.factor)
    assert not list(codec.parameters())


def test_kl_latents_are_scaled_as_stable_diffusions(kl):
    pixels, codec = drawn(2, 3, 16, 16), kl()
    expected = codec.model.encode(pixels * 2 - 1).latent_dist.mode() * SD_SCALE
    assert torch.equal(codec.encode(pixels), expected)
    images = codec.model.decode(expected / SD_SCALE).sample / 2 + 0.5
    torch.testing.assert_close(codec.decode(expected), images, rtol=0, atol=1e-6)


def test_a_shift_is_taken_off_before_scaling(kl):
    """As the pipelines of Stable Diffusion 3 do: (z - shift) * scale."""
    pixels, codec = drawn(2, 3, 16, 16), kl(shift_factor=0.5)
    raw = codec.model.encode(pixels * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(codec.encode(pixels), (raw - 0.5) * SD_SCALE)
    torch.testing.assert_close(codec.decode(codec.encode(pixels)), codec.from_raw(raw), rtol=0, atol=1e-5)


def test_tiny_latents_are_those_of_the_model():
    torch.manual_seed(0)
    codec, pixels = AutoencoderSpec("tiny", channels=8, stages=2).build(16).eval(), drawn(2, 3, 16, 16)
    latents = codec.model.encode(pixels * 2 - 1).latents
    assert torch.equal(codec.encode(pixels), latents)
    assert torch.equal(codec.decode(latents), codec.model.decode(latents).sample / 2 + 0.5)


@pytest.mark.parametrize("kind", ["tiny", "kl"])
@pytest.mark.parametrize(("stages", "factor"), [(1, 1), (2, 2), (3, 4), (4, 8)])
def test_each_stage_but_the_last_halves_the_sides(kind, stages, factor):
    codec = AutoencoderSpec(kind, channels=4, stages=stages, latent_channels=5).build(16)
    assert (codec.factor, codec.channels) == (factor, 5)
    latents = codec.encode(drawn(1, 3, 16, 16))
    assert latents.shape == (1, 5, 16 // factor, 16 // factor)
    assert codec.decode(latents).shape == (1, 3, 16, 16)


def test_factors_of_published_autoencoders():
    """Of Stable Diffusion's f8 and its tiny one, by diffusers' defaults; without memory for weights."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    with torch.device("meta"):
        stable = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
        )
        tiny = AutoencoderTiny()
    assert [(codec.factor, codec.channels) for codec in (Autoencoder(stable), Autoencoder(tiny))] == [(8, 4), (8, 4)]


def test_divergence_of_the_posterior_is_torchs(kl):
    pixels, codec = drawn(2, 3, 16, 16), kl()
    posterior = codec.model.encode(pixels * 2 - 1).latent_dist
    expected = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0, 1)).mean((1, 2, 3))
    latents, divergence = codec.raw(pixels)
    torch.testing.assert_close(divergence, expected)
    assert torch.equal(latents, posterior.mean)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(codec.raw(pixels, noise)[0], posterior.mean + posterior.std * noise)
    assert torch.equal(codec.raw(pixels, torch.zeros_like(noise))[0], posterior.mean)


def test_divergence_of_tiny_latents_is_that_of_a_normal_of_variance_1():
    torch.manual_seed(0)
    codec = AutoencoderSpec("tiny", channels=8, stages=2).build(16)
    latents, divergence = codec.raw(drawn(2, 3, 16, 16))
    expected = kl_divergence(Normal(latents, torch.ones_like(latents)), Normal(0, 1)).mean((1, 2, 3))
    torch.testing.assert_close(divergence, expected)


@pytest.mark.parametrize("kind", ["pixel", "tiny", "kl"])
def test_gradients_pass_through_a_frozen_decoder_beyond_the_range_of_pixels(kind):
    codec = PixelSpace() if kind == "pixel" else AutoencoderSpec(kind, channels=8, stages=2).build(16)
    codec.requires_grad_(False)
    latents = torch.full((1, codec.channels, 8, 8), 3.0, requires_grad=True)
    codec.decode(latents).square().mean().backward()
    assert latents.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in codec.parameters())


@pytest.mark.parametrize("channels", [4, 24, 32, 48])
def test_any_width_of_a_kl_autoencoder_can_be_normalised_in_groups(channels):
    codec = AutoencoderSpec("kl", channels=channels, stages=1).build(8)
    assert codec.decode(codec.encode(drawn(1, 3, 8, 8))).isfinite().all()


@pytest.mark.parametrize("key", ["channels", "stages", "latent_channels", "blocks"])
def test_sizes_of_nothing_are_refused(key):
    with pytest.raises(ValueError, match=rf"model\.autoencoder\.{key} is 0; expected at least 1"):
        AutoencoderSpec(**{key: 0})
