"""The loss of inversion and its PSNR, against their formulas in double precision and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.feature_networks import RandomConvNet
from lightning_modules.gan.inversion import InversionTerms, inversion_gradient
from tests.gsdd_runs import Pixels

COUNT = 5


@pytest.fixture
def latents() -> Tensor:
    return torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def real() -> Tensor:
    return torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> nn.Module:
    return RandomConvNet(width=4, depth=1).network(0, 0, torch.device("cpu"))


def found(
    latents: Tensor, real: Tensor, terms: InversionTerms, network: nn.Module | None, size: int = 2
) -> tuple[Tensor, Tensor]:
    chunks = torch.arange(COUNT).split(size)
    return inversion_gradient(Pixels(), latents, lambda at: real[at], chunks, terms, network)


def test_pixel_loss_is_the_mean_squared_difference(latents: Tensor, real: Tensor) -> None:
    """Of each patch; its derivative is 2 (x - y) / (pixels of a patch)."""
    gradient, _ = found(latents, real, InversionTerms(pixel=3, feature=0), None)
    torch.testing.assert_close(gradient, 3 * 2 * (latents - real) / real[0].numel(), rtol=1e-5, atol=1e-9)


def test_pixels_outside_are_pulled_back(real: Tensor) -> None:
    """They count as clipped, and keep the gradient of where they were clipped to."""
    gradient, psnr = found(torch.full_like(real, 1.5), real, InversionTerms(pixel=1, feature=0), None)
    torch.testing.assert_close(gradient, 2 * (1 - real) / real[0].numel(), rtol=1e-5, atol=1e-9)
    expected = -10 * (1 - real).square().mean((1, 2, 3)).log10()
    torch.testing.assert_close(psnr, expected, rtol=1e-5, atol=0)


def test_feature_loss_is_a_share_of_the_real_features_power(latents: Tensor, real: Tensor, network: nn.Module) -> None:
    """Autograd on the formula, for all patches at once."""
    leaf = latents.clone().requires_grad_()
    of_real, own = network(real), network(leaf)
    shares = ((own - of_real) ** 2).sum(1) / (of_real**2).sum(1)
    (expected,) = torch.autograd.grad(shares.sum(), leaf)
    gradient, _ = found(latents, real, InversionTerms(pixel=0, feature=1), network)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-8)
    pixels, _ = found(latents, real, InversionTerms(pixel=1, feature=0), None)
    both, _ = found(latents, real, InversionTerms(pixel=2, feature=0.5), network)
    torch.testing.assert_close(both, 2 * pixels + 0.5 * expected, rtol=1e-4, atol=1e-8)


def test_psnr_is_scikit_images(latents: Tensor, real: Tensor) -> None:
    from skimage.metrics import peak_signal_noise_ratio

    _, psnr = found(latents, real, InversionTerms(), None)
    pairs = zip(real.double().numpy(), latents.double().numpy(), strict=True)
    expected = [peak_signal_noise_ratio(one, other, data_range=1) for one, other in pairs]
    np.testing.assert_allclose(psnr.numpy(), expected, rtol=1e-5)
    _, perfect = found(real, real, InversionTerms(), None)
    assert perfect.tolist() == [100] * COUNT  # its ceiling, where there is no error


@pytest.mark.parametrize("size", [1, 5])
def test_chunks_change_nothing(size: int, latents: Tensor, real: Tensor, network: nn.Module) -> None:
    expected = found(latents, real, InversionTerms(), network, size=2)
    torch.testing.assert_close(found(latents, real, InversionTerms(), network, size), expected, rtol=1e-5, atol=1e-8)


def test_a_process_has_its_chunks_alone(latents: Tensor, real: Tensor) -> None:
    """With the gradient that they have among all latents; the rest is zero, to be added up."""
    expected = found(latents, real, InversionTerms(), None)
    chunks = [torch.tensor([4, 1])]
    own = inversion_gradient(Pixels(), latents, lambda at: real[at], chunks, InversionTerms(), None)
    for mine, whole in zip(own, expected, strict=True):
        assert torch.equal(mine[[4, 1]], whole[[4, 1]])
        assert not mine[[0, 2, 3]].any()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"pixel": 0, "feature": 0}, "model.inversion.pixel and feature are both 0"),
        ({"pixel": -1}, "model.inversion.pixel is -1; expected 0 or more"),
        ({"feature": float("nan")}, "model.inversion.feature is nan"),
    ],
)
def test_weights_that_train_nothing(weights: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        InversionTerms(**weights)
