"""Upscaling whole images: in overlapping tiles where they are too large, and as the mean over flips and turns.

At scale 1 the same is restoration: images keep their size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datamodules.bicubic import upscale as bicubic_upscale

FEATHER = 2  # the blended strip is overlap / FEATHER wide


def baseline_name(scale: int) -> str:
    """What results are compared with: `bicubic` upscaling, or at scale 1 the `input` as it is."""
    return "bicubic" if scale > 1 else "input"


def baseline(lr: Tensor, scale: int) -> Tensor:
    """LR without a network's help, as `baseline_name` says.

    Args:
        lr: float in [0, 1], (B, 3, h, w).
        scale: by which sides grow.

    Returns:
        In [0, 1], (B, 3, scale * h, scale * w).
    """
    return bicubic_upscale(lr, scale).clamp(0, 1) if scale > 1 else lr


def upscale(
    network: nn.Module,
    lr: Tensor,
    scale: int,
    *,
    tile: int | None = None,
    overlap: int = 16,
    self_ensemble: bool = False,
) -> Tensor:
    """Upscale images with a network.

    Neither gradients nor training mode are touched: call `network.eval()` and `torch.no_grad()` outside.

    Args:
        network: maps (B, 3, h, w) to (B, 3, scale * h, scale * w).
        lr: (B, 3, h, w), float in [0, 1]. With tiles it may lie on another device than the network (a large image on
            the CPU): tiles travel, the result stays with `lr`.
        scale: of the network.
        tile: side of a tile in LR pixels; None for the whole image at once. Tiles bound the network's memory, not the
            result's.
        overlap: context in LR pixels that a tile sees on each inner side beyond what it contributes. From the
            network's receptive radius on, a convolutional network gives the same image with and without tiles. Next to
            it a strip of half that width is blended linearly, which hides the seams of all other networks.
        self_ensemble: mean over the 8 flips and quarter turns (EDSR's "+", Timofte et al. 2016); 8 times the work.

    Returns:
        (B, 3, scale * h, scale * w), not clipped, of the type and on the device of `lr`.

    Raises:
        ValueError: for values out of range, or when the network's output has another size.
    """
    _check(lr, scale, tile, overlap)

    def once(images: Tensor) -> Tensor:
        if tile is None or tile >= max(images.shape[-2:]):
            return _run(network, images, scale)
        return _tiled(network, images, scale, tile, overlap)

    return _mean_over_symmetries(once, lr) if self_ensemble else once(lr)


def _check(lr: Tensor, scale: int, tile: int | None, overlap: int) -> None:
    if lr.ndim != 4 or not lr.is_floating_point():
        raise ValueError(f"upscaling takes a float tensor (B, 3, h, w), not {lr.dtype} {tuple(lr.shape)}")
    if scale < 1:
        raise ValueError(f"scale {scale} is not a positive integer")
    if overlap < 0:
        raise ValueError(f"overlap {overlap} is negative; 0 switches it off")
    shared = _shared(overlap)
    if tile is not None and tile <= shared:
        raise ValueError(
            f"a tile of {tile} pixels is too small for overlap {overlap}: at least {shared + 1} are needed"
        )


def _shared(overlap: int) -> int:
    """LR pixels that two neighbouring tiles have in common: the context of both and the blended strip."""
    return 2 * overlap + overlap // FEATHER


def _run(network: nn.Module, images: Tensor, scale: int) -> Tensor:
    parameter = next(network.parameters(), images)
    output = network(images.to(parameter.device)).to(images)
    expected = (*images.shape[:2], images.shape[2] * scale, images.shape[3] * scale)
    if output.shape != expected:
        raise ValueError(f"the network turned {tuple(images.shape)} into {tuple(output.shape)}, not x{scale}")
    return output


class _Span(NamedTuple):
    """A tile along one axis: LR pixels [start, stop), and the weight of each of its output pixels."""

    start: int
    stop: int
    weight: Tensor


def _tiled(network: nn.Module, images: Tensor, scale: int, tile: int, overlap: int) -> Tensor:
    batch, channels, height, width = images.shape
    result = images.new_zeros(batch, channels, height * scale, width * scale)
    columns = _spans(width, scale, tile, overlap, images)
    for row in _spans(height, scale, tile, overlap, images):
        for column in columns:
            output = _run(network, images[..., row.start : row.stop, column.start : column.stop], scale)
            weighted = output * row.weight[:, None] * column.weight
            result[..., _upscaled(row, scale), _upscaled(column, scale)] += weighted
    return result


def _upscaled(span: _Span, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)


def _spans(length: int, scale: int, tile: int, overlap: int, like: Tensor) -> list[_Span]:
    """Tiles of equal size along an axis, the last one shifted inwards; their weights add up to one everywhere."""
    size = min(tile, length)
    last = length - size
    starts = [*range(0, last, tile - _shared(overlap)), last]
    rise = _rise(size * scale, overlap * scale, overlap // FEATHER * scale).to(like)
    spans = [_Span(at, at + size, _weight(rise, at > 0, at < last)) for at in starts]
    total = like.new_zeros(length * scale)
    for span in spans:
        total[_upscaled(span, scale)] += span.weight
    return [span._replace(weight=span.weight / total[_upscaled(span, scale)]) for span in spans]


def _rise(size: int, context: int, feather: int) -> Tensor:
    """(size,): zeros over the context, a linear ramp over the feather, then ones."""
    # without feather, half a pixel over a ramp of half a pixel is a step
    return ((torch.arange(size) - context + 0.5) / max(feather, 0.5)).clamp(0, 1)


def _weight(rise: Tensor, neighbour_before: bool, neighbour_after: bool) -> Tensor:
    """Weight along one side of a tile; sides at the border of the image count in full."""
    weight = torch.ones_like(rise)
    if neighbour_before:
        weight = torch.minimum(weight, rise)
    if neighbour_after:
        weight = torch.minimum(weight, rise.flip(0))
    return weight


def _mean_over_symmetries(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean of g^-1(function(g(x))) over the 8 symmetries g of the square."""
    results = []
    for mirrored in (images, images.flip(-1)):
        turned = [function(mirrored.rot90(turns, dims=(-2, -1))).rot90(-turns, dims=(-2, -1)) for turns in range(4)]
        results.append(sum(turned, start=torch.zeros_like(turned[0])))
    return (results[0] + results[1].flip(-1)) / 8
