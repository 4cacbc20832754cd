"""Gradients by chunks, against autograd on all latents at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.gan.chunks import chunked_gradient

WIDTH = 5


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def embed(some: Tensor) -> Tensor:
    """No linear function."""
    mixing = torch.linspace(-1, 1, 6 * WIDTH, dtype=torch.float64).view(6, WIDTH)
    return torch.tanh(some.flatten(1) @ mixing) * some.square().sum((1, 2))[:, None]


def loss(features: Tensor) -> Tensor:
    """Of all features together: no sum over latents."""
    return (features.mean(0).square() * features.var(0, correction=0).exp()).sum()


@pytest.mark.parametrize(("size", "embedded"), [(8, [8]), (100, [8]), (5, [5, 3, 5, 3]), (1, [1] * 16)])
def test_gradient_is_that_of_all_at_once(size: int, embedded: list[int], latents: Tensor) -> None:
    """One chunk is embedded once, several are twice; never more at a time than a chunk."""
    leaf, seen = latents.clone().requires_grad_(), []
    expected = loss(embed(leaf))
    (whole,) = torch.autograd.grad(expected, leaf)

    def counted(some: Tensor) -> Tensor:
        seen.append(len(some))
        return embed(some)

    gradient, value = chunked_gradient(latents, size, counted, loss)
    torch.testing.assert_close(gradient, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
    assert seen == embedded


def test_latents_are_left_as_they_are(latents: Tensor) -> None:
    before = latents.clone().requires_grad_()
    _, value = chunked_gradient(before, 3, embed, loss)
    assert before.grad is None
    assert torch.equal(before, latents)
    assert not value.requires_grad
