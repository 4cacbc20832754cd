"""Gradients of a loss on all features at once, with graphs of a few patches alone.

Features of all latents are computed without a graph, the loss is differentiated with respect to these, and each chunk
is then computed again with a graph that takes its share of that gradient back to its latents: gradient caching (Gao,
Zhang, Han and Callan, 2021, arXiv 2101.06983). The gradient is exact, whatever the chunks are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def chunked_gradient(
    latents: Tensor, size: int, embed: Callable[[Tensor], Tensor], loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Gradient of a loss with respect to latents, and the loss.

    Args:
        latents: (N, ...).
        size: most latents that a graph is built for; where it holds them all, nothing is computed twice.
        embed: features (B, D) of latents (B, ...); must give the same ones when it is called again.
        loss: a number from the features of all latents, (N, D).

    Returns:
        As the latents; a number without gradient.
    """
    leaves = [part.detach().requires_grad_() for part in latents.split(size)]
    at_once = len(leaves) == 1
    with torch.set_grad_enabled(at_once):
        parts = [embed(leaf) for leaf in leaves]
    features = torch.cat([part.detach() for part in parts]).requires_grad_()
    value = loss(features)
    (cotangents,) = torch.autograd.grad(value, features)
    gradients: list[Tensor] = []
    for leaf, part, cotangent in zip(leaves, parts, cotangents.split(size), strict=True):
        gradients += torch.autograd.grad(part if at_once else embed(leaf), leaf, cotangent)
    return torch.cat(gradients), value.detach()
