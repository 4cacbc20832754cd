"""Losses of a generator against a discriminator, and the regularisers of both."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_PATH_LENGTH_DECAY = 0.01  # share of a new batch in the running mean, as in StyleGAN2


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy of a discriminator that is to tell real from generated (Goodfellow et al., NeurIPS 2014).

    Args:
        real_logits: of real images, any shape; large means real.
        fake_logits: of generated images.

    Returns:
        mean softplus(-real) + mean softplus(fake), a float32 scalar, 0 or above; 2 log 2 for logits of 0.
    """
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """The non-saturating loss: -log of the probability that what was generated is real (Goodfellow et al., 2014).

    Args:
        fake_logits: of generated images, any shape.

    Returns:
        mean softplus(-fake), a float32 scalar, 0 or above; log 2 for logits of 0.
    """
    return F.softplus(-fake_logits.float()).mean()


def r1_penalty(real_images: Tensor, real_logits: Tensor) -> Tensor:
    """Half the squared norm of the discriminator's gradient at real images (Mescheder et al., ICML 2018, R1).

    The caller multiplies it by gamma, and by the interval where it is computed in some steps only.

    Args:
        real_images: (B, ...), what the logits were computed of, with requires_grad set before that.
        real_logits: of these images, B of them in any shape.

    Returns:
        Scalar, the mean over images of |d logit / d image|^2 / 2, with the graph that its backward needs.

    Raises:
        ValueError: when the images do not require a gradient.
    """
    gradient = _gradient(real_logits.sum(), real_images, "real_images")
    return gradient.square().flatten(1).sum(1).mean() / 2


def path_length_penalty(images: Tensor, w: Tensor, noise: Tensor, running_mean: Tensor) -> tuple[Tensor, Tensor]:
    """How unequally far steps in w move images (Karras et al., "Analyzing and Improving ... StyleGAN", CVPR 2020).

    The mean of (|J^T y| - a)^2 with J = d image / d w, y normal with variance 1 / (H W), and a the running mean of
    the lengths |J^T y|; squares are summed over w's width and averaged over its layers, as in the authors' code. Here
    a counts as a constant, as in the paper; in their code gradients also flow through its newest batch.

    Args:
        images: generated, (B, 3, H, W).
        w: (B, layers, w_dim), what they were generated of, with a gradient.
        noise: standard normal numbers, (B, 3, H, W).
        running_mean: scalar, a before this batch; 0 at the start of training.

    Returns:
        The penalty, a scalar with the graph that its backward needs, and the new running mean, a scalar without
        gradient; of this process's images alone.

    Raises:
        ValueError: when w does not require a gradient.
    """
    height, width = images.shape[-2:]
    gradient = _gradient((images * noise).sum() / math.sqrt(height * width), w, "w")
    lengths = torch.linalg.vector_norm(gradient, dim=(1, 2)) / math.sqrt(w.shape[1])
    mean = torch.lerp(running_mean, lengths.detach().mean(), _PATH_LENGTH_DECAY)
    return (lengths - mean).square().mean(), mean


def _gradient(of: Tensor, by: Tensor, name: str) -> Tensor:
    """The derivative of `of` by `by`, differentiable itself."""
    if not by.requires_grad:
        raise ValueError(f"{name} needs no gradient; call {name}.requires_grad_() before the network sees it")
    return torch.autograd.grad(of, by, create_graph=True)[0]
