"""Speed of the exact bicubic x4 downscale in uint8 mode, on one thread, against NumPy versions, side by side.

    python benchmarks/bicubic.py
    python benchmarks/bicubic.py --megapixels 0.15 2 --out benchmarks/results/bicubic.json

Run it from the root of the repository. Each case is measured in turn by all, and again, best of all rounds:

- ``numpy``: ``imresize`` as it is commonly copied: all taps of an axis gathered at once, weighted and summed;
- ``numpy by taps``: the same with one tap at a time added up, which spares memory;
- ``ours``: ``datamodules.bicubic.downscale`` on the CPU;
- ``ours on cuda``: the same on a GPU, where there is one, the images being there already.

Speeds are megapixels of HR per second (a pixel has three channels); the ratio is ours over ``numpy``; the difference is
the largest of ours from ``numpy`` in grey levels. Images are a photograph of scikit-image, mirrored to the size wanted.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from reporting import Row, environment, save, show
from torch import Tensor

from datamodules.bicubic import downscale

SCALE = 4
PATCHES = 256
Images = NDArray[np.uint8]
Rows = Callable[[Images, NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]]


def contributions(length: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights and clamped source positions, (outputs, taps), of one axis, as in MATLAB's imresize.m."""
    width = 4 * SCALE
    centres = np.arange(1, math.ceil(length / SCALE) + 1) * SCALE + 0.5 * (1 - SCALE)
    sources = np.floor(centres - width / 2)[:, None] + np.arange(width + 2)
    x = np.abs(centres[:, None] - sources) / SCALE
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = near * (x <= 1) + far * ((x > 1) & (x <= 2))
    weights /= weights.sum(axis=1, keepdims=True)
    used = (weights != 0).any(axis=0)
    return weights[:, used], np.clip(sources[:, used].astype(np.int64) - 1, 0, length - 1)


def rows_at_once(x: Images, weights: NDArray[np.float64], sources: NDArray[np.int64]) -> NDArray[np.float64]:
    """Resize (H, ...) along H: gather (outputs, taps, ...), weight, sum."""
    return (weights[:, :, None, None] * x[sources].astype(np.float64)).sum(axis=1)


def rows_by_taps(x: Images, weights: NDArray[np.float64], sources: NDArray[np.int64]) -> NDArray[np.float64]:
    """Resize (H, ...) along H: add up one tap at a time."""
    total = np.zeros((len(weights), *x.shape[1:]))
    for weight, source in zip(weights.T, sources.T, strict=True):
        total += weight[:, None, None] * x[source]
    return total


def numpy_downscale(image: Images, resize_rows: Rows) -> Images:
    """Shrink (H, W, 3) by SCALE, rounding after each axis."""
    for axis in (0, 1):
        values = resize_rows(np.moveaxis(image, axis, 0), *contributions(image.shape[axis]))
        image = np.moveaxis(np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8), 0, axis)
    return image


def photograph(height: int, width: int) -> Images:
    """(height, width, 3), the astronaut mirrored as often as needed."""
    from skimage.data import astronaut

    photo = astronaut()
    beyond = [(0, max(0, size - have)) for size, have in zip((height, width), photo.shape[:2], strict=True)]
    return np.pad(photo, [*beyond, (0, 0)], mode="symmetric")[:height, :width]


def cases(megapixels: list[float]) -> dict[str, Images]:
    """Name and images (N, H, W, 3): photographs of 3:2, and a batch of patches."""
    named: dict[str, Images] = {}
    for size in megapixels:
        height = round(math.sqrt(size * 1e6 / 1.5))
        width = round(height * 1.5)
        named[f"1 x {height} x {width}"] = photograph(height, width)[None]
    side = 64 * math.isqrt(PATCHES)
    tiles = photograph(side, side).reshape(-1, 64, math.isqrt(PATCHES), 64, 3).swapaxes(1, 2)
    named[f"{PATCHES} x 64 x 64"] = np.ascontiguousarray(tiles.reshape(PATCHES, 64, 64, 3))
    return named


def contenders(images: Images) -> dict[str, Callable[[], Tensor]]:
    """What is measured; each gives LR (N, 3, h, w)."""

    def by_numpy(resize_rows: Rows) -> Callable[[], Tensor]:
        def resize() -> Tensor:
            return torch.from_numpy(np.stack([numpy_downscale(image, resize_rows) for image in images])).movedim(3, 1)

        return resize

    planar = torch.from_numpy(images).movedim(3, 1).contiguous()
    named = {
        "numpy": by_numpy(rows_at_once),
        "numpy by taps": by_numpy(rows_by_taps),
        "ours": lambda: downscale(planar, SCALE),
    }
    if torch.cuda.is_available():
        on_device = planar.cuda()
        named["ours on cuda"] = lambda: downscale(on_device, SCALE)
    return named


def seconds(function: Callable[[], Tensor], times: int) -> float:
    """Seconds per call, the mean over some calls."""
    start = time.perf_counter()
    for _ in range(times):
        result = function()
    if result.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def measure(name: str, images: Images, rounds: int) -> Row:
    """One case: speeds in HR megapixels per second, ratios and the largest difference in grey levels."""
    megapixels = images[..., 0].size / 1e6
    named = contenders(images)
    lr = {who: resize().cpu().int() for who, resize in named.items()}  # also warms up
    best = dict.fromkeys(named, math.inf)
    for _ in range(rounds):
        for who, resize in named.items():
            best[who] = min(best[who], seconds(resize, times=max(1, round(1 / megapixels))))
    ours = [who for who in named if who.startswith("ours")]
    return {
        "images": name,
        **{f"{who}, MP/s": round(megapixels / spent, 2) for who, spent in best.items()},
        **{f"{who} / numpy": round(best["numpy"] / best[who], 1) for who in ours},
        "ours / numpy by taps": round(best["numpy by taps"] / best["ours"], 1),
        "max diff": max(int((lr[who] - lr["numpy"]).abs().max()) for who in ours),
    }


def main() -> None:
    """Measure, print a table and, with --out, write JSON."""
    parser = argparse.ArgumentParser(description="Speed of the exact bicubic downscale against NumPy versions.")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.154, 2.0, 20.0], help="sizes of photographs")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is measured; the best counts")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, images, options.rounds) for name, images in cases(options.megapixels).items()]
    show(f"Exact bicubic, uint8 mode, x{SCALE} down, one thread: HR megapixels per second", rows)
    if options.out:
        save(options.out, rows, environment("numpy"), rounds=options.rounds)


if __name__ == "__main__":
    main()
