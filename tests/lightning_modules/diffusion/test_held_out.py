"""What validation measures: the denoiser's error, and the PSNR of an autoencoder."""

from __future__ import annotations

import pytest
import torch

from datamodules.pair import PairBatch
from lightning_modules.diffusion.codec import AutoencoderSpec
from lightning_modules.diffusion.held_out import held_out_error, reconstruction_psnr


def photograph(height=20, width=20):
    """The image number 3 of a validation set; 20 x 20 are four patches of 8."""
    hr = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    return PairBatch(torch.zeros(1, 3, height, width), hr, torch.tensor([3]))


@pytest.fixture
def batch():
    return photograph()


def grid(batch):
    return torch.stack([batch.hr[0, :, top : top + 8, left : left + 8] for top in (0, 8) for left in (0, 8)])


def test_patches_are_numbered_by_image_and_place(tiny_diffusion, batch):
    diffusion = tiny_diffusion()
    expected = diffusion.held_out_error(grid(batch) * 2 - 1, 3 * 8 + torch.arange(4)).mean()
    torch.testing.assert_close(held_out_error(diffusion, batch), expected)
    assert reconstruction_psnr(diffusion, batch) is None  # pixels are themselves


def test_the_psnr_is_that_of_each_patch_on_average(tiny_diffusion, batch):
    """Against torchmetrics."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    torch.manual_seed(0)
    codec = AutoencoderSpec("tiny", channels=4, stages=1).build(8).eval()
    psnr = reconstruction_psnr(tiny_diffusion(codec), batch)
    with torch.no_grad():
        back = codec.decode(codec.encode(grid(batch))).clamp(0, 1)
    expected = [peak_signal_noise_ratio(b, x, data_range=1.0) for b, x in zip(back, grid(batch), strict=True)]
    torch.testing.assert_close(psnr.detach(), torch.stack(expected).mean())


def test_images_smaller_than_a_patch_say_nothing(tiny_diffusion):
    assert held_out_error(tiny_diffusion(), photograph(7, 30)) is None
