"""Gradients of a loss on all features at once, with the memory of a few patches.

Features of all latents are computed without a graph, the loss is differentiated with respect to these, and each chunk
is then computed again with a graph that takes its share of that gradient back to its latents: gradient caching (Gao,
Zhang, Han and Callan, 2021, arXiv 2101.06983). The gradient is exact, whatever the chunks are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Embed = Callable[[Tensor, Tensor], Tensor]
"""Features (B, D) of latents (B, ...), given their positions, int64 (B,)."""


def split(labels: Tensor, size: int) -> list[Tensor]:
    """Positions of the latents, int64, in chunks of one class and at most `size`.

    Args:
        labels: class of each latent, int64 (N,).
        size: most latents of a chunk.
    """
    return [part for label in labels.unique() for part in (labels == label).nonzero()[:, 0].split(size)]


def chunked_gradient(
    latents: Tensor,
    chunks: Sequence[Tensor],
    width: int,
    embed: Embed,
    loss: Callable[[Tensor], Tensor],
    exchange: Callable[[Tensor], Tensor] = lambda own: own,
) -> Tensor:
    """Gradient of `loss` with respect to the latents of some chunks.

    Args:
        latents: (N, ...).
        chunks: positions that this process computes; with one chunk alone nothing is computed twice.
        width: D.
        embed: must give the same features when it is called again.
        loss: a number from the features of all latents, (N, D).
        exchange: adds up features (N, D) of all processes, each with zeros where it computes nothing.

    Returns:
        As the latents; zero outside of the chunks.
    """
    keep = len(chunks) == 1
    own = latents.new_zeros(len(latents), width)
    leaves = [latents[chunk].detach().requires_grad_() for chunk in chunks]
    embedded = []
    with torch.set_grad_enabled(keep):
        for chunk, leaf in zip(chunks, leaves, strict=True):
            features = embed(leaf, chunk)
            own[chunk] = features.detach()
            embedded += [features] if keep else []
    everything = exchange(own).detach().requires_grad_()
    (cotangents,) = torch.autograd.grad(loss(everything), everything)
    gradient = torch.zeros_like(latents)
    for number, (chunk, leaf) in enumerate(zip(chunks, leaves, strict=True)):
        features = embedded[number] if keep else embed(leaf, chunk)
        (gradient[chunk],) = torch.autograd.grad(features, leaf, cotangents[chunk])
    return gradient
