"""The patches that a selection chooses from: squares on a grid over stored photographs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from datamodules.crops import Window, cut
from datamodules.distilled import encode_png
from datamodules.pair import PairBatch
from datamodules.patch_store import PatchStore
from datamodules.progress import progress_bar
from datamodules.selection.interfaces import Indices

BATCH_PIXELS = 1 << 21
"""HR pixels that are read at a time: 512 patches of 64 x 64."""

SAMPLE = 2048
"""Most patches that are encoded to know their size as files."""


class Candidates:
    """Square patches on a grid, none beyond an image's border, with the LR that lies in register.

    Args:
        store: the photographs.
        images: their numbers in the store.
        size: HR side in pixels, a multiple of the scale.
        stride: HR pixels from one patch to the next, a multiple of the scale.

    Attributes:
        places: int64 (N, 3): image, top, left (HR pixels), in the order of images, rows, columns.
        full_pixels: HR pixels of all the photographs.

    Raises:
        ValueError: when size or stride is no positive multiple of the scale, or no photograph is as large as a patch.
    """

    def __init__(self, store: PatchStore, images: Sequence[int], size: int, stride: int) -> None:
        scale = store.index.scale
        for key, value in (("candidate_size", size), ("candidate_stride", stride)):
            if value <= 0 or value % scale:
                raise ValueError(
                    f"data.{key} is {value}; expected a multiple of the scale {scale}, such as {16 * scale}"
                )
        self.store = store
        self.size = size
        self.stride = stride
        sizes = [store.index.sizes[image] for image in images]
        grids = [_grid(image, extent, size, stride) for image, extent in zip(images, sizes, strict=True)]
        self.places: Indices = np.concatenate(grids) if grids else np.empty((0, 3), dtype=np.int64)
        self.full_pixels = sum(height * width for height, width in sizes)
        if not len(self.places):
            largest = max((min(extent) for extent in sizes), default=0)
            raise ValueError(
                f"data.candidate_size is {size} but the largest square in any photograph has {largest} pixels; "
                "set a smaller size, or give larger photographs"
            )

    def __len__(self) -> int:
        return len(self.places)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the photographs' content, of the grid and of how large the full set is."""
        content = [self.store.index.fingerprint, self.size, self.full_pixels]
        grid = json.dumps(content).encode() + self.places.tobytes()
        return hashlib.sha256(grid).hexdigest()

    def windows(self, chosen: Indices) -> list[Window]:
        """Some of the candidates as windows of the store."""
        return [Window(image, top, left, self.size, self.size) for image, top, left in self.places[chosen].tolist()]

    def pairs(self, chosen: Indices) -> PairBatch:
        """Pixels of some of the candidates: uint8, `index` is the candidate's number."""
        places = [(image, top, left) for image, top, left in self.places[chosen].tolist()]
        return cut(self.store, places, self.size, torch.from_numpy(chosen))

    def batches(self, chosen: Indices, description: str) -> Iterator[PairBatch]:
        """The same in batches of bounded memory, with a progress bar."""
        step = max(1, BATCH_PIXELS // self.size**2)
        starts = range(0, len(chosen), step)
        with progress_bar(description, len(starts)) as advance:
            for start in starts:
                yield self.pairs(chosen[start : start + step])
                advance()

    def png_bytes(self, chosen: Indices) -> int:
        """Bytes that some of the candidates take in a distilled set; estimated from a sample where there are many."""
        sample = chosen[:: -(-len(chosen) // SAMPLE)]
        pairs = self.pairs(sample)
        pixels = (image.permute(1, 2, 0).numpy() for images in (pairs.hr, pairs.lr) for image in images)
        total = sum(len(encode_png(image)) for image in pixels)
        return round(total * len(chosen) / len(sample))


def _grid(image: int, extent: tuple[int, int], size: int, stride: int) -> Indices:
    tops, lefts = (np.arange(0, length - size + 1, stride, dtype=np.int64) for length in extent)
    top, left = np.meshgrid(tops, lefts, indexing="ij")
    return np.stack([np.full(top.size, image, dtype=np.int64), top.ravel(), left.ravel()], axis=1)
