"""How unsure a model under training is of single samples, measured without disturbing the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_modules.losses.pixel import PixelLoss


def symmetry_variance(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Variance of a network's outputs under the eight flips and quarter turns of its input, turned back.

    A network that has learned what it sees treats all of them alike; the outputs of one that guesses differ.

    Args:
        network: maps (B, 3, h, w) to (B, 3, H, W), and the transposed shape likewise.
        images: (B, 3, h, w).

    Returns:
        Mean over colours and pixels of the population variance, float32 (B,).
    """
    outputs = []
    for turns in range(4):
        turned = images.rot90(turns, (-2, -1))
        outputs.append(network(turned).rot90(-turns, (-2, -1)))
        outputs.append(network(turned.flip(-1)).flip(-1).rot90(-turns, (-2, -1)))
    return torch.stack(outputs).float().var(0, correction=0).mean((1, 2, 3))


def sample_losses(loss: PixelLoss, prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of each sample by itself: (B, C, H, W) twice to (B,)."""
    pairs = zip(prediction.split(1), target.split(1), strict=True)
    return torch.stack([loss(one, truth) for one, truth in pairs])


@contextmanager
def undisturbed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Inference within training: no gradients, no dropout, and afterwards modes and random generators as before."""
    modes = [(part, part.training) for part in module.modules()]
    generators = [device] if device.type == "cuda" else []
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(generators):
            yield
    finally:
        for part, training in modes:
            part.training = training
