"""What validation measures: the denoiser's error, and the PSNR of an autoencoder."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.diffusion.codec import AutoencoderSpec
from lightning_modules.diffusion.held_out import held_out_metrics


@pytest.fixture
def images():
    """Two photographs of 20 x 20: of each, four patches of 8."""
    return torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))


def grid(images):
    corners = [(image, top, left) for image in range(2) for top in (0, 8) for left in (0, 8)]
    return torch.stack([images[image, :, top : top + 8, left : left + 8] for image, top, left in corners])


def test_pixels_have_a_denoising_error_only(tiny_diffusion, images):
    diffusion = tiny_diffusion()
    metrics = held_out_metrics(diffusion, images)
    expected = diffusion.held_out_error(grid(images) * 2 - 1, torch.arange(8)).mean()
    assert metrics.keys() == {"denoising_loss"}
    torch.testing.assert_close(metrics["denoising_loss"], expected)


def test_the_psnr_is_that_of_each_patch_on_average(tiny_diffusion, images):
    """Against torchmetrics."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    torch.manual_seed(0)
    codec = AutoencoderSpec("tiny", channels=4, stages=1).build(8).eval()
    metrics = held_out_metrics(tiny_diffusion(codec), images)
    with torch.no_grad():
        back = codec.decode(codec.encode(grid(images))).clamp(0, 1)
    expected = [peak_signal_noise_ratio(b, x, data_range=1.0) for b, x in zip(back, grid(images), strict=True)]
    torch.testing.assert_close(metrics["reconstruction_psnr"].detach(), torch.stack(expected).mean())
    assert metrics.keys() == {"denoising_loss", "reconstruction_psnr"}


def test_images_smaller_than_a_patch_say_nothing(tiny_diffusion):
    assert held_out_metrics(tiny_diffusion(), torch.rand(1, 3, 7, 30)) == {}
