"""MATLAB's bicubic ``imresize``: exact, batched, differentiable, on any device.

Keys' cubic kernel with a = -0.5, widened by the factor when shrinking (antialiasing), after the ``contributions``
function of MATLAB's ``imresize.m``. One axis at a time: rows (height) first, then columns. An axis is resized block by
block: eight neighbouring outputs depend on a short run of inputs, so that a small banded matrix times the gathered runs
gives them all, as fast as the machine multiplies matrices, and with memory in proportion to the image.

Two modes, by dtype. Floating point: one linear map, never rounded or clipped, so it has exact gradients. uint8: as
MATLAB treats uint8 images, rounding half away from zero and clipping after EACH of the two passes; only this mode
reproduces the LR files of the benchmark sets bit for bit.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Border = Literal["clamp", "mirror"]

_BLOCK = 8  # outputs per banded matrix: fewer waste calls, more waste multiplications by zero
_TILE = {"cpu": 1 << 20}  # elements worked on at a time in uint8 mode, to stay in a CPU's cache
_TILE_ELSEWHERE = 1 << 26  # other devices: only to bound memory
_SHORT = 32  # inputs up to which an axis is enlarged faster by one full matrix than block by block
_NAMED_DENOMINATORS = 10_000  # a float within rounding of such a fraction (1/3, 0.3) is meant to be that fraction


@torch.compiler.disable  # one clean break of the graph: the cached plans must not be traced
def imresize(images: Tensor, scale: float | Fraction, *, border: Border = "clamp") -> Tensor:
    """Resize images as MATLAB's ``imresize(x, scale, 'bicubic')`` does.

    Args:
        images: (..., C, H, W). Any floating dtype (any range; differentiable; half precision is computed in float32),
            or uint8 for MATLAB's uint8 mode.
        scale: MATLAB's factor, above 0: 0.25, ``Fraction(1, 3)``, 4, 1.5. A float is read as the fraction it is
            written for: 0.3 is 3/10.
        border: what lies outside: ``clamp`` repeats the edge pixel (as the benchmark sets were made), ``mirror``
            reflects with the edge pixel repeated (as recent MATLAB does).

    Returns:
        (..., C, ceil(H * scale), ceil(W * scale)), contiguous, dtype and device of the input. Where ceil makes it
        larger than H * scale, the geometry still is that of ``scale``, as in MATLAB.

    Raises:
        ValueError: when scale is not above 0, border is unknown, or images are not (..., C, H, W) with pixels.
        TypeError: when the dtype is neither floating point nor uint8.
    """
    _check(images, scale, border)
    factor = _as_fraction(scale)
    planes = images.reshape(-1, *images.shape[-2:])
    with torch.autocast(images.device.type, enabled=False):  # autocast would multiply in half precision
        resized = (_resize if images.is_floating_point() else _resize_uint8)(planes, factor, border)
    return resized.reshape(*images.shape[:-2], *resized.shape[-2:])


def downscale(images: Tensor, scale: int, *, border: Border = "clamp") -> Tensor:
    """Shrink by an integer factor: ``imresize(images, Fraction(1, scale))``.

    Args:
        images: (..., C, H, W), floating point or uint8.
        scale: HR side divided by LR side, 1 or more.
        border: as in :func:`imresize`.

    Returns:
        (..., C, ceil(H / scale), ceil(W / scale)).

    Raises:
        ValueError: when scale is not an integer of 1 or more, and as :func:`imresize` does.
        TypeError: as :func:`imresize` does.
    """
    return imresize(images, Fraction(1, _whole(scale)), border=border)


def upscale(images: Tensor, scale: int, *, border: Border = "clamp") -> Tensor:
    """Enlarge by an integer factor: ``imresize(images, scale)``.

    Args:
        images: (..., C, H, W), floating point or uint8.
        scale: output side divided by input side, 1 or more.
        border: as in :func:`imresize`.

    Returns:
        (..., C, H * scale, W * scale).

    Raises:
        ValueError: when scale is not an integer of 1 or more, and as :func:`imresize` does.
        TypeError: as :func:`imresize` does.
    """
    return imresize(images, Fraction(_whole(scale)), border=border)


def _check(images: Tensor, scale: float | Fraction, border: str) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale is {scale}; expected a factor above 0, such as 0.25, Fraction(1, 3) or 4")
    if border not in ("clamp", "mirror"):
        raise ValueError(f"border is {border!r}; expected 'clamp' or 'mirror'")
    if images.ndim < 3 or 0 in images.shape[-2:]:
        raise ValueError(f"images are {tuple(images.shape)}; expected (..., C, H, W) with at least one pixel")
    if not images.is_floating_point() and images.dtype != torch.uint8:
        raise TypeError(f"images are {images.dtype}; expected floating point or torch.uint8: convert with .to() first")


def _whole(scale: int) -> int:
    if not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale is {scale}; expected an integer of 1 or more (imresize takes any factor)")
    return scale


def _as_fraction(scale: float | Fraction) -> Fraction:
    """Give a float the fraction that it stands for, so that 1.1 * 10 pixels are 11 and not, by rounding noise, 12."""
    if not isinstance(scale, float):
        return Fraction(scale)
    simple = Fraction(scale).limit_denominator(_NAMED_DENOMINATORS)
    return simple if float(simple) == scale else Fraction(scale)


# --- geometry -------------------------------------------------------------------------------------------------------


class _Contributions(NamedTuple):
    """Which inputs make each output of an axis: weights float64 (outputs, taps), sources int64 (outputs, taps).

    The sources of an output are consecutive, and may lie outside of the axis.
    """

    weights: NDArray[np.float64]
    sources: NDArray[np.int64]


def _contributions(length: int, factor: Fraction) -> _Contributions:
    """MATLAB's ``contributions``, formula by formula, so that its rounding errors are the same too."""
    scale = float(factor)
    stretch = min(scale, 1.0)
    width = 4.0 / stretch
    outputs = np.arange(1, math.ceil(length * factor) + 1, dtype=np.float64)
    centres = outputs / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centres - width / 2)
    sources = left[:, None] + np.arange(math.ceil(width) + 2)
    weights = stretch * _cubic(stretch * (centres[:, None] - sources))
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.flatnonzero((weights != 0).any(axis=0))
    taps = slice(used[0], used[-1] + 1)
    return _Contributions(weights[:, taps], sources[:, taps].astype(np.int64) - 1)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.5 (Keys 1981, eq. 15)."""
    x = np.abs(x)
    x2, x3 = x**2, x**3
    return np.where(x <= 1, 1.5 * x3 - 2.5 * x2 + 1, np.where(x <= 2, -0.5 * x3 + 2.5 * x2 - 4 * x + 2, 0.0))


def _inside(sources: NDArray[np.int64], length: int, border: str) -> NDArray[np.int64]:
    """Fold positions outside of the axis back into it."""
    if border == "clamp":
        return np.clip(sources, 0, length - 1)
    folded = np.mod(sources, 2 * length)
    return np.minimum(folded, 2 * length - 1 - folded)


def _exact_dtype(weights: NDArray[np.float64]) -> torch.dtype | None:
    """The dtype in which sums of weighted uint8 pixels are exact in ANY order of summation; None if neither is.

    The weights of 1/4 are whole multiples of 1/4096: products with uint8 and all partial sums then are as well, and
    fit a float's mantissa. Those of 1/3 are rounded.
    """
    reach = 255 * np.abs(weights).sum(axis=1).max()
    for unit, dtype, mantissa in ((2**15, torch.float32, 24), (2**40, torch.float64, 53)):
        multiples = weights * unit
        if np.array_equal(multiples, np.rint(multiples)) and reach * unit < 2**mantissa:
            return dtype
    return None


# --- resizing along the height --------------------------------------------------------------------------------------


class _Bands(NamedTuple):
    """Resizes (N, H, W) along H block by block: weights (blocks, unit, run), sources (blocks * run,)."""

    outputs: int
    weights: Tensor
    sources: Tensor

    @property
    def units(self) -> int:
        """Blocks in all."""
        return self.weights.shape[0]

    @property
    def unit(self) -> int:
        """Outputs per block; the last block may reach beyond the outputs."""
        return self.weights.shape[1]

    @property
    def cost(self) -> int:
        """Elements held per block and column."""
        return self.weights.shape[2]

    def __call__(self, planes: Tensor, first: int, last: int) -> Tensor:
        """The blocks first to last, (N, blocks * unit, W)."""
        weights = self.weights[first:last]
        blocks, unit, run = weights.shape
        runs = planes.index_select(1, self.sources[first * run : last * run]).to(weights.dtype)
        resized = weights @ runs.view(len(planes), blocks, run, planes.shape[2])
        return resized.view(len(planes), blocks * unit, planes.shape[2])


class _Taps(NamedTuple):
    """Resizes (N, H, W) along H tap by tap in MATLAB's order: weights (outputs, taps), sources (outputs, taps).

    Where sums are not exact their order decides which way a tie is rounded, at 1/3 for one pixel in 160.
    """

    outputs: int
    weights: Tensor
    sources: Tensor
    unit: int = 1
    cost: int = 6  # three float64, counted in float32

    @property
    def units(self) -> int:
        """Units in all: one for each output."""
        return self.outputs

    def __call__(self, planes: Tensor, first: int, last: int) -> Tensor:
        """The outputs first to last, (N, outputs, W)."""
        shape = (len(planes), last - first, planes.shape[2])
        total = torch.zeros(shape, dtype=self.weights.dtype, device=planes.device)
        for weight, source in zip(self.weights[first:last].T, self.sources[first:last].T, strict=True):
            total.add_(planes.index_select(1, source) * weight[:, None])
        return total


_Plan = _Bands | _Taps


def _bands(contributions: _Contributions, length: int, border: str, dtype: torch.dtype, device: torch.device) -> _Bands:
    weights, sources = contributions
    outputs = np.arange(len(weights))
    starts = sources[::_BLOCK, 0]
    offsets = sources - starts[outputs // _BLOCK, None]
    matrices = np.zeros((len(starts), _BLOCK, offsets.max() + 1))
    matrices[outputs[:, None] // _BLOCK, outputs[:, None] % _BLOCK, offsets] = weights
    runs = starts[:, None] + np.arange(matrices.shape[2])
    inside = torch.as_tensor(_inside(runs, length, border).reshape(-1), device=device)
    return _Bands(len(weights), torch.as_tensor(matrices, dtype=dtype, device=device), inside)


@lru_cache(maxsize=256)
def _short_matrix(length: int, factor: Fraction, border: str, single: bool, device: torch.device) -> Tensor | None:
    """(outputs, length) for a short axis that is enlarged and summed exactly; else None."""
    weights, sources = _contributions(length, factor)
    dtype = _exact_dtype(weights)
    if factor <= 1 or length > _SHORT or dtype is None:
        return None
    matrix = np.zeros((len(weights), length))
    np.add.at(matrix, (np.arange(len(weights))[:, None], _inside(sources, length, border)), weights)
    with torch.inference_mode(False):
        return torch.as_tensor(matrix, dtype=dtype if single else torch.float64, device=device)


@lru_cache(maxsize=256)
def _float_plan(length: int, factor: Fraction, border: str, dtype: torch.dtype, device: torch.device) -> _Bands:
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        return _bands(_contributions(length, factor), length, border, dtype, device)


@lru_cache(maxsize=256)
def _uint8_plan(length: int, factor: Fraction, border: str, single: bool, device: torch.device) -> _Plan:
    contributions = _contributions(length, factor)
    dtype = _exact_dtype(contributions.weights)
    with torch.inference_mode(False):
        if dtype is not None:
            dtype = dtype if single else torch.float64
            return _bands(contributions, length, border, dtype, device)
        weights, sources = contributions
        inside = torch.as_tensor(_inside(sources, length, border), device=device)
        return _Taps(len(weights), torch.as_tensor(weights, device=device), inside)


def _resize(planes: Tensor, factor: Fraction, border: str) -> Tensor:
    """Resize (N, H, W) of a floating dtype: one linear map."""
    count, height, width = planes.shape
    dtype = torch.promote_types(planes.dtype, torch.float32 if _full_float32(planes.device) else torch.float64)
    rows, columns = (_float_plan(side, factor, border, dtype, planes.device) for side in (height, width))
    halfway = rows(planes, 0, rows.units)[:, : rows.outputs]
    lines = halfway.reshape(count * rows.outputs, width)
    resized = columns(lines.t().contiguous()[None], 0, columns.units)[0, : columns.outputs].t()
    return resized.to(planes.dtype).contiguous().view(count, rows.outputs, columns.outputs)


def _resize_uint8(planes: Tensor, factor: Fraction, border: str) -> Tensor:
    """Resize (N, H, W) of uint8, rounded and clipped after each pass."""
    count, height, width = planes.shape
    single = _full_float32(planes.device)
    short = [_short_matrix(side, factor, border, single, planes.device) for side in (height, width)]
    if short[0] is not None and short[1] is not None:
        return _enlarge_short(planes, short[0], short[1])
    rows, columns = (_uint8_plan(side, factor, border, single, planes.device) for side in (height, width))
    halfway = _uint8_rows(planes, rows)
    resized = _uint8_columns(halfway.reshape(count * rows.outputs, width), columns)
    return resized.view(count, rows.outputs, columns.outputs)


def _enlarge_short(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Enlarge (N, H, W) by one matrix per axis, some planes at a time."""
    enlarged = planes.new_empty(len(planes), len(rows), len(columns))
    some = _tile(planes.device, len(rows) * len(columns))
    for start in range(0, len(planes), some):
        part = enlarged[start : start + some]
        halfway = planes.new_empty(len(part), len(rows), planes.shape[2])
        _round_into(halfway, rows @ planes[start : start + some].to(rows.dtype))
        lines = halfway.view(-1, planes.shape[2]).to(columns.dtype)
        _round_into(part, (lines @ columns.T).view(part.shape))
    return enlarged


def _uint8_rows(planes: Tensor, plan: _Plan) -> Tensor:
    """Resize (N, H, W) along H, a tile of planes and units at a time."""
    count, _, width = planes.shape
    tile = _tile(planes.device, plan.cost * width)
    some_units, some_planes = min(tile, plan.units), max(1, tile // plan.units)
    rounded = planes.new_empty(count, plan.units * plan.unit, width)
    for image, unit in product(range(0, count, some_planes), range(0, plan.units, some_units)):
        values = plan(planes[image : image + some_planes], unit, min(unit + some_units, plan.units))
        start = unit * plan.unit
        _round_into(rounded[image : image + some_planes, start : start + values.shape[1]], values)
    return rounded[:, : plan.outputs]


def _uint8_columns(lines: Tensor, plan: _Plan) -> Tensor:
    """Resize (lines, W) along W, some lines at a time, transposed while they are in cache."""
    some = _tile(lines.device, plan.cost * plan.units)
    rounded = lines.new_empty(len(lines), plan.outputs)
    for start in range(0, len(lines), some):
        part = lines[start : start + some].t().to(plan.weights.dtype, memory_format=torch.contiguous_format)
        values = plan(part[None], 0, plan.units)
        _round_into(rounded[start : start + some], values[0, : plan.outputs].t())
    return rounded


def _round_into(target: Tensor, values: Tensor) -> None:
    """Clip and round half away from zero: what is not negative truncates to that after adding a half."""
    target.copy_(values.clamp_(0, 255).add_(0.5).to(torch.int16))  # via int16: vectorised, three times as fast


def _tile(device: torch.device, cost: int) -> int:
    return max(1, _TILE.get(device.type, _TILE_ELSEWHERE) // cost)


def _full_float32(device: torch.device) -> bool:
    """Whether matrices in float32 are multiplied in float32, and not in TF32 or bfloat16 as users may allow."""
    backend = {"cuda": torch.backends.cuda, "cpu": torch.backends.mkldnn}.get(device.type)
    return backend is None or backend.matmul.fp32_precision not in ("tf32", "bf16")
