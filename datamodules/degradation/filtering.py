"""Convolution with a kernel of its own for each sample."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def mirrored(images: Tensor, rows: int, columns: int) -> Tensor:
    """Images with a margin on all four sides that repeats them mirrored, edge pixels doubled (d c b a | a b c d).

    Args:
        images: (B, C, H, W) of any size, also smaller than the margin.
        rows: margin above and below.
        columns: margin to the left and to the right.

    Returns:
        (B, C, H + 2 rows, W + 2 columns).
    """
    for axis, margin in ((-2, rows), (-1, columns)):
        side = images.shape[axis]
        position = torch.arange(-margin, side + margin, device=images.device) % (2 * side)
        images = images.index_select(axis, torch.minimum(position, 2 * side - 1 - position))
    return images


def correlate(images: Tensor, kernels: Tensor) -> Tensor:
    """Each sample filtered with its own kernel, where the kernel lies inside of the image; one grouped convolution.

    Args:
        images: (B, C, H, W).
        kernels: (B, h, w), the same for all channels. Nothing is flipped.

    Returns:
        (B, C, H - h + 1, W - w + 1), in the dtype of `images`.
    """
    # CUDA may convolve float32 in TF32, with ten bits, and in different ways for different batches.
    dtype = torch.float64 if images.is_cuda else images.dtype
    count, channels, height, width = images.shape
    weights = kernels.to(dtype).repeat_interleave(channels, 0).unsqueeze(1)
    with torch.autocast(images.device.type, enabled=False):
        planes = images.to(dtype).reshape(1, count * channels, height, width)
        filtered = F.conv2d(planes, weights, groups=count * channels)
    return filtered.view(count, channels, *filtered.shape[-2:]).to(images.dtype)


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """The same with mirrored borders, so that the size stays; kernels (B, h, w) have odd sides and sum to 1.

    Returns:
        (B, C, H, W) in [0, 1]: rounding errors beyond are cut off.
    """
    height, width = kernels.shape[-2:]
    return correlate(mirrored(images, height // 2, width // 2), kernels).clamp(0, 1)


def line_kernels(length: Tensor, angle: Tensor, longest: float) -> Tensor:
    """Line segments through the kernel's middle, drawn with smooth edges; not normalised.

    A tap at distance d from the segment between the centres of its end pixels weighs 1 - d, or 0 where that is
    negative, as MATLAB documents for ``fspecial('motion', length, angle)``.

    Args:
        length: in pixels, 1 or more, B numbers of any shape.
        angle: in degrees, counter-clockwise from the horizontal, likewise B numbers.
        longest: upper bound of all lengths; the kernels' size depends on it alone, not on what a batch draws.

    Returns:
        (B, k, k) in [0, 1] with k odd.
    """
    half = (length.view(-1, 1, 1) - 1) / 2
    radians = torch.deg2rad(angle).view(-1, 1, 1)
    radius = math.ceil((longest - 1) / 2)
    steps = torch.arange(-radius, radius + 1, device=length.device, dtype=torch.float32)
    right, up = steps.view(1, 1, -1), -steps.view(1, -1, 1)
    along = right * radians.cos() + up * radians.sin()
    aside = up * radians.cos() - right * radians.sin()
    distance = torch.hypot((along.abs() - half).clamp(min=0), aside)
    return (1 - distance).clamp(min=0)
