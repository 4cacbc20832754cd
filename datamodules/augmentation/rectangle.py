"""Random rectangles that are in register on LR and HR."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.augmentation.counter_rng import uniform
from datamodules.pair import PairBatch

_SMALLEST_SIDE, _LARGEST_SIDE = 0.25, 0.75  # of the patch: smaller ones are mostly border, larger ones mostly patch


def _interval(length: int, size: Tensor, place: Tensor) -> Tensor:
    """Marks an interval of random size and place in `length` positions: (B,) draws in [0, 1) give bool (B, length)."""
    share = _SMALLEST_SIDE + (_LARGEST_SIDE - _SMALLEST_SIDE) * size
    side = (share * length).round().clamp(min=1)
    start = (place * (length - side + 1)).floor()
    position = torch.arange(length, device=size.device)
    return (position >= start.unsqueeze(1)) & (position < (start + side).unsqueeze(1))


def paste_rectangles(source: PairBatch, target: PairBatch, seed: int) -> PairBatch:
    """`target` with one rectangle of `source` in each sample, at the same place.

    Each side is 1/4 to 3/4 of the patch's, and the rectangle covers whole LR pixels and exactly their HR pixels.

    Args:
        source: what is seen inside the rectangles.
        target: what is seen outside; its indices decide the rectangles.
        seed: of the augmentation.

    Returns:
        A batch with `target`'s indices.
    """
    height, width = target.lr.shape[-2:]
    draws = uniform(seed, "rectangle", target.index, count=4).unbind(1)
    rows, columns = _interval(height, *draws[:2]), _interval(width, *draws[2:])
    inside_lr = rows[:, None, :, None] & columns[:, None, None, :]
    inside_hr = inside_lr.repeat_interleave(target.scale, -2).repeat_interleave(target.scale, -1)
    return target.with_images(
        lr=torch.where(inside_lr, source.lr, target.lr), hr=torch.where(inside_hr, source.hr, target.hr)
    )
