"""Differentiable augmentation of images: the same for all that are compared, or another for each.

Operations take floating-point images (B, 3, H, W) and one parameter per image, (B,), on the same device; gradients
reach the images. None clips: values may leave [0, 1], since clipping would take the gradient of what it cuts off.

Ranges are the published ones, for pixels in [0, 1]. DiffAugment's pixels lie in [-1, 1], so that amounts are halved.
DSA's have the mean of CIFAR-10 subtracted and are divided by its standard deviation, both as its code states them
(0.20 for each channel), so that an amount of 1 is 0.2. The zero that fills what an operation leaves empty is 0.5 here:
exactly for DiffAugment, and within 0.05 for DSA. Factors and lengths do not depend on the unit.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.augmentation.counter_rng import uniform

_GREY = 0.5  # the papers' zero
_LARGEST_SHIFT = 0.125  # of a side, both papers
_CUTOUT = 0.5  # of a side, both papers
_LARGEST_STRETCH = 1.2  # DSA
_LARGEST_ANGLE = 15.0  # degrees, DSA
_DRAWS = 3  # uniform numbers per image that an operation may use


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.dtype).view(-1, 1, 1, 1)


def brightness(images: Tensor, offset: Tensor) -> Tensor:
    """Images plus `offset`, (B,), in the unit of the pixels."""
    return images + _per_image(offset, images)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Distances from each pixel's mean over the channels times `factor`, (B,): 0 is grey, 1 changes nothing."""
    return torch.lerp(images.mean(dim=1, keepdim=True), images, _per_image(factor, images))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Distances from each image's mean times `factor`, (B,): 0 is one colour, 1 changes nothing."""
    return torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, _per_image(factor, images))


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Images mirrored left-right where `flipped`, bool (B,), holds; exact."""
    return torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)


def translate(images: Tensor, down: Tensor, right: Tensor, fill: float = 0.0) -> Tensor:
    """Images shifted by whole pixels; exact, nothing is interpolated.

    Args:
        images: (B, 3, H, W).
        down: int64 (B,), pixels; negative values shift up.
        right: int64 (B,), pixels; negative values shift to the left.
        fill: value of what comes in from outside.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - down.unsqueeze(1)
    columns = torch.arange(width, device=images.device) - right.unsqueeze(1)
    # Taken modulo the side, every pixel is read once: backward writes each gradient to a place of its own.
    moved = torch.take_along_dim(images, (rows % height)[:, None, :, None], dim=2)
    moved = torch.take_along_dim(moved, (columns % width)[:, None, None, :], dim=3)
    seen = _rectangle((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    return moved.where(seen, torch.full_like(moved, fill))


def cutout(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int], fill: float = 0.0) -> Tensor:
    """Images with a rectangle painted over.

    Args:
        images: (B, 3, H, W).
        top: int64 (B,), the rectangle's first row; rows outside the image are ignored.
        left: int64 (B,), its first column; likewise.
        size: height and width of the rectangle, pixels.
        fill: its value.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - top.unsqueeze(1)
    columns = torch.arange(width, device=images.device) - left.unsqueeze(1)
    covered = _rectangle((rows >= 0) & (rows < size[0]), (columns >= 0) & (columns < size[1]))
    return images.where(~covered, torch.full_like(images, fill))


def _rectangle(rows: Tensor, columns: Tensor) -> Tensor:
    """Where both bool (B, H) and bool (B, W) hold: (B, 1, H, W)."""
    return rows[:, None, :, None] & columns[:, None, None, :]


def scale(images: Tensor, vertical: Tensor, horizontal: Tensor, fill: float = 0.0) -> Tensor:
    """Images stretched about their centre: factors (B,) above 1 enlarge, below 1 shrink and show `fill` around."""
    zero = torch.zeros_like(vertical)
    return _resample(images, (1 / vertical, zero, zero, 1 / horizontal), fill)


def rotate(images: Tensor, degrees: Tensor, fill: float = 0.0) -> Tensor:
    """Images turned counter-clockwise about their centre by `degrees`, (B,); corners that come in show `fill`."""
    angle = torch.deg2rad(degrees)
    cosine, sine = angle.cos(), angle.sin()
    return _resample(images, (cosine, sine, -sine, cosine), fill)


def _resample(images: Tensor, matrix: tuple[Tensor, Tensor, Tensor, Tensor], fill: float) -> Tensor:
    """Reads the image at matrix @ (row, column), in pixels from the centre; no double backward: torch has none.

    Bicubic, where the papers' code is bilinear: of the spectral energy of photographs above a quarter of the sampling
    rate, a turn by 7 degrees leaves 0.82 and 0.49. What is blurred in both images cannot be matched.

    Args:
        images: (B, 3, H, W).
        matrix: four (B,): row from row, row from column, column from row, column from column.
        fill: value outside the image.
    """
    height, width = images.shape[-2:]
    rows, columns = _centred(height, images).unsqueeze(1), _centred(width, images)
    # Not affine_grid: it multiplies matrices, which autocast does in bf16 and GPUs may do in TF32.
    by_row, by_column, across_row, across_column = (entry.to(images.dtype).view(-1, 1, 1) for entry in matrix)
    source_row = by_row * rows + by_column * columns
    source_column = across_row * rows + across_column * columns
    grid = torch.stack((source_column * (2 / width), source_row * (2 / height)), dim=-1)
    return F.grid_sample(images - fill, grid, mode="bicubic", padding_mode="zeros", align_corners=False) + fill


def _centred(length: int, like: Tensor) -> Tensor:
    """Positions of `length` pixels from their middle."""
    return torch.arange(length, device=like.device, dtype=like.dtype) - (length - 1) / 2


def _between(low: float, high: float, draw: Tensor) -> Tensor:
    return low + (high - low) * draw


def _below(count: int, draw: Tensor) -> Tensor:
    """Whole numbers 0 to count - 1, all equally likely."""
    return (draw * count).long()


def _share(length: int, share: float) -> int:
    return int(length * share + 0.5)


def _draw_colour(images: Tensor, draws: Tensor, amount: float) -> Tensor:
    images = brightness(images, _between(-amount, amount, draws[:, 0]))
    images = saturation(images, _between(0, 2, draws[:, 1]))
    return contrast(images, _between(0.5, 1.5, draws[:, 2]))


def _draw_shift(images: Tensor, draws: Tensor) -> Tensor:
    furthest = [_share(side, _LARGEST_SHIFT) for side in images.shape[-2:]]
    down, right = (_below(2 * most + 1, draws[:, axis]) - most for axis, most in enumerate(furthest))
    return translate(images, down, right, _GREY)


def _draw_cutout(images: Tensor, draws: Tensor) -> Tensor:
    sides = images.shape[-2:]
    height, width = (_share(side, _CUTOUT) for side in sides)
    # As published: the centre is anywhere in the image, so that the rectangle may reach over its border.
    top, left = (
        _below(side + 1 - size % 2, draws[:, axis]) - size // 2
        for axis, (side, size) in enumerate(zip(sides, (height, width), strict=True))
    )
    return cutout(images, top, left, (height, width), _GREY)


def _draw_flip(images: Tensor, draws: Tensor) -> Tensor:
    return flip(images, draws[:, 0] < 0.5)


def _draw_scale(images: Tensor, draws: Tensor) -> Tensor:
    # DSA draws what the coordinates are multiplied by: one over the stretch.
    shrunk = _between(1 / _LARGEST_STRETCH, _LARGEST_STRETCH, draws)
    return scale(images, 1 / shrunk[:, 0], 1 / shrunk[:, 1], _GREY)


def _draw_rotation(images: Tensor, draws: Tensor) -> Tensor:
    return rotate(images, _between(-_LARGEST_ANGLE, _LARGEST_ANGLE, draws[:, 0]), _GREY)


# An operation as a strategy names it: of images and of uniform numbers (B, _DRAWS) in [0, 1).
_Operation = Callable[[Tensor, Tensor], Tensor]

_SIAMESE: Mapping[str, _Operation] = {
    "color": partial(_draw_colour, amount=0.1),
    "crop": _draw_shift,
    "cutout": _draw_cutout,
    "flip": _draw_flip,
    "scale": _draw_scale,
    "rotate": _draw_rotation,
}
_DIFFAUGMENT: Mapping[str, _Operation] = {
    "color": partial(_draw_colour, amount=0.25),
    "translation": _draw_shift,
    "cutout": _draw_cutout,
}


def _named(strategy: str, valid: Mapping[str, _Operation], owner: object) -> tuple[str, ...]:
    """The names in a strategy, in its order.

    Raises:
        ValueError: for a name that is not in `valid`.
    """
    if strategy.strip().lower() in {"", "none"}:
        return ()
    names = tuple(name.strip() for name in re.split("[,_]", strategy))
    for name in names:
        if name not in valid:
            nearest = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{type(owner).__name__}: strategy {strategy!r} names {name!r}; the nearest valid name is {nearest!r} "
                f"(valid are {', '.join(valid)}, or none alone)"
            )
    return names


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}; augmentation needs float RGB (B, 3, H, W)")


class Siamese:
    """Differentiable siamese augmentation, the same for all images of a step (Zhao & Bilen, ICML 2021, 2102.08259).

    As in the authors' code, each step applies one operation of the strategy, all equally likely, with one draw of its
    parameters: color (brightness by up to 0.1, saturation times 0 to 2, contrast times 0.5 to 1.5, in this order), crop
    (a shift by up to 1/8 of the side), cutout (a square of half the side), flip (left-right, or not), scale (each axis
    by 1/1.2 to 1.2) or rotate (by up to 15 degrees). What comes in from outside, or is cut out, is grey.

    Args:
        strategy: names of operations, joined by "_" or ","; "none" or nothing leaves images as they are. A name that
            occurs twice is twice as likely.

    Raises:
        ValueError: for an unknown name.
    """

    def __init__(self, strategy: str = "color_crop_cutout_flip_scale_rotate") -> None:
        self.strategy = strategy
        self._names = _named(strategy, _SIAMESE, self)

    def __call__(self, images: Tensor, seed: int, step: int, label: int) -> Tensor:
        """The images after the transform of (seed, step, label), which depends on nothing else.

        Args:
            images: float32 RGB in [0, 1], (B, 3, H, W), real or synthetic, any number of them.
            seed: of the run.
            step: of the matching.
            label: class that is matched.

        Returns:
            The same shape and dtype.

        Raises:
            ValueError: for images of another shape, or of whole numbers.
        """
        _check(images)
        if not self._names:
            return images
        draws = uniform(seed, f"siamese augmentation {label}", torch.tensor([step]), count=1 + _DRAWS)
        name = self._names[int(_below(len(self._names), draws[0, 0]))]
        return _SIAMESE[name](images, draws[:, 1:].to(images.device).expand(len(images), -1))


class DiffAugment:
    """Augmentation of what a discriminator sees, real and generated (Zhao et al., NeurIPS 2020, arXiv 2006.10738).

    Every image goes through all operations of the strategy, each with a draw of its own: color (brightness by up to
    0.25, saturation times 0 to 2, contrast times 0.5 to 1.5, in this order), translation (by up to 1/8 of the side) and
    cutout (a square of half the side). All have a double backward, for an R1 with the gradient at the images before
    augmentation; `GANPrior` takes it at those that the discriminator sees, and does without.

    Args:
        strategy: names of operations, joined by "," or "_"; "none" or nothing leaves images as they are.

    Raises:
        ValueError: for an unknown name.
    """

    def __init__(self, strategy: str = "color,translation,cutout") -> None:
        self.strategy = strategy
        self._names = _named(strategy, _DIFFAUGMENT, self)

    def __call__(self, images: Tensor, seed: int, numbers: Tensor) -> Tensor:
        """The images, each after the transform of (seed, its number), whatever batch it lies in.

        Args:
            images: float32 RGB in [0, 1], (B, 3, H, W).
            seed: of the run and of what is augmented: reals and fakes of the same numbers need two seeds.
            numbers: running numbers of the images, int64 (B,).

        Returns:
            The same shape and dtype.

        Raises:
            ValueError: for images of another shape or of whole numbers, or when there is not one number for each.
        """
        _check(images)
        if numbers.shape != images.shape[:1]:
            raise ValueError(
                f"numbers are {tuple(numbers.shape)} for {len(images)} images; DiffAugment needs one per image"
            )
        for position, name in enumerate(self._names):
            draws = uniform(seed, f"DiffAugment {position} {name}", numbers, count=_DRAWS)
            images = _DIFFAUGMENT[name](images, draws.to(images.device))
        return images
