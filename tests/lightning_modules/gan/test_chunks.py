"""Gradients by chunks, against autograd on all latents at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lightning_modules.gan.chunks import chunked_gradient, split

LABELS = torch.tensor([2, 0, 2, 2, 0, 1, 2, 2])
WIDTH = 5


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def embed(some: Tensor, positions: Tensor) -> Tensor:
    """Another function for each position, and no linear one."""
    mixing = torch.linspace(-1, 1, 6 * WIDTH, dtype=torch.float64).view(6, WIDTH)
    return torch.tanh(some.flatten(1) @ mixing + positions[:, None]) * some.square().sum((1, 2))[:, None]


def loss(features: Tensor) -> Tensor:
    """Of all features together: no sum over latents."""
    classes = [features[label == LABELS] for label in (0, 1, 2)]
    return sum((one.mean(0).square() * one.var(0, correction=0).exp()).sum() for one in classes)  # type: ignore[return-value]


def at_once(latents: Tensor) -> Tensor:
    leaf = latents.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(embed(leaf, torch.arange(len(leaf)))), leaf)
    return gradient


@pytest.mark.parametrize(
    "chunks",
    [[[0, 1, 2, 3, 4, 5, 6, 7]], [[5, 1, 0], [2, 7, 6, 4, 3]], [[3], [0, 7], [1, 2], [4, 6], [5]]],
    ids=["1 chunk", "2 chunks", "5 chunks"],
)
def test_gradient_is_that_of_all_at_once(chunks: list[list[int]], latents: Tensor) -> None:
    found = chunked_gradient(latents, [torch.tensor(chunk) for chunk in chunks], WIDTH, embed, loss)
    torch.testing.assert_close(found, at_once(latents), rtol=1e-10, atol=1e-12)


def test_chunks_of_one_class(latents: Tensor) -> None:
    found = chunked_gradient(latents, split(LABELS, 2), WIDTH, embed, loss)
    torch.testing.assert_close(found, at_once(latents), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shares", [([[5, 1], [0]], [[2, 7, 6], [4, 3]]), ([[0, 1, 2, 3, 4, 5, 6, 7]], [])])
def test_gradients_of_two_processes_add_up(shares: tuple[list[list[int]], list[list[int]]], latents: Tensor) -> None:
    """Features are exchanged; each process has a gradient where it computes, also when one has nothing to do."""
    whole = embed(latents, torch.arange(8))
    sent = []

    def gradient(chunks: Sequence[Sequence[int]]) -> Tensor:
        def exchange(own: Tensor) -> Tensor:
            sent.append(own.clone())
            return whole

        return chunked_gradient(latents, [torch.tensor(chunk) for chunk in chunks], WIDTH, embed, loss, exchange)

    first, second = (gradient(share) for share in shares)
    torch.testing.assert_close(sent[0] + sent[1], whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(first + second, at_once(latents), rtol=1e-10, atol=1e-12)
    assert not (first * second).any()


def test_latents_are_left_as_they_are(latents: Tensor) -> None:
    before = latents.clone().requires_grad_()
    chunked_gradient(before, split(LABELS, 3), WIDTH, embed, loss)
    assert before.grad is None
    assert torch.equal(before, latents)


@pytest.mark.parametrize(("size", "sizes"), [(2, [2, 1, 2, 2, 1]), (3, [2, 1, 3, 2]), (100, [2, 1, 5])])
def test_split_keeps_classes_apart(size: int, sizes: list[int]) -> None:
    chunks = split(LABELS, size)
    assert [len(chunk) for chunk in chunks] == sizes
    assert [len(LABELS[chunk].unique()) for chunk in chunks] == [1] * len(sizes)
    assert torch.cat(chunks).sort().values.tolist() == list(range(8))
