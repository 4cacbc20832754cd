"""Random crops in register from a patch store, addressed by the running number of the sample.

Which image, where in it: everything about sample n follows from (seed, n) alone. No generator state exists, so the
stream is the same for any number of workers and processes, and a resumed run continues it exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from datamodules.augmentation.counter_rng import uniform
from datamodules.pair import PairBatch
from datamodules.patch_store import PatchStore

ROUND = 1 << 20
"""Most samples that are permuted at a time, so that an epoch of a huge folder takes neither memory nor a pause."""

SHOWN = 3
"""Most sizes of windows that an error names."""


Place = tuple[int, int, int]
"""Image number in the store, top and left in HR pixels, both multiples of the scale."""


@dataclass(frozen=True)
class Window:
    """A rectangle that crops are drawn from: image number in the store, then HR pixels, multiples of the scale."""

    image: int
    top: int
    left: int
    height: int
    width: int


def whole_images(store: PatchStore, images: Sequence[int]) -> list[Window]:
    """One window per image, as large as the image."""
    return [Window(image, 0, 0, *store.index.sizes[image]) for image in images]


def sub_images(store: PatchStore, images: Sequence[int], side: int) -> list[Window]:
    """Overlapping square windows at a stride of half their side, the last of each row and column moved inwards.

    Args:
        store: where the images lie.
        images: image numbers.
        side: HR pixels, a multiple of the scale; an image with a shorter side gets windows cut to fit.
    """
    step = max(store.index.scale, side // 2 - side // 2 % store.index.scale)
    windows = []
    for image in images:
        height, width = store.index.sizes[image]
        corners = itertools.product(_starts(height, side, step), _starts(width, side, step))
        windows += [Window(image, top, left, min(side, height), min(side, width)) for top, left in corners]
    return windows


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(length - side, 0)
    return [*range(0, last, step), last]


def cut(store: PatchStore, places: Sequence[Place], size: int | tuple[int, int], numbers: torch.Tensor) -> PairBatch:
    """Rectangles of stored photographs with the LR that lies in register.

    Args:
        store: pixels.
        places: of the rectangles, B of them.
        size: side of squares, or height and width: HR pixels, multiples of the scale.
        numbers: int64 (B,), the batch's `index`.

    Returns:
        uint8 (B, 3, height, width) and its LR.
    """
    scale = store.index.scale
    height, width = (size, size) if isinstance(size, int) else size
    hr = np.empty((len(places), height, width, 3), dtype=np.uint8)
    lr = np.empty((len(places), height // scale, width // scale, 3), dtype=np.uint8)
    for row, (image, top, left) in enumerate(places):
        hr[row] = store.hr(image)[top : top + height, left : left + width]
        low = slice(top // scale, (top + height) // scale), slice(left // scale, (left + width) // scale)
        lr[row] = store.lr(image)[low]
    store.release()
    return PairBatch(_channels_first(lr), _channels_first(hr), numbers)


class CropDataset(Dataset[PairBatch]):
    """Patches cropped at random places of windows, large windows the more often.

    An epoch has as many samples as patches fit into the windows side by side, and every window gets its share of them:
    samples are stratified over the windows' area, in random order. Whoever reads may say which window a sample is cut
    from instead; then its running number decides the place in that window alone.

    Args:
        store: pixels.
        windows: where crops may lie; none smaller than a patch.
        patch_size: HR side in pixels, a multiple of the store's scale.
        seed: of the whole stream.
        labels: pseudo-label of each window, int64 (W,), which its crops carry; None where there are no classes.
        features: vector of each window, float32 (W, D), likewise; may be memory-mapped: only rows are read.

    Raises:
        ValueError: when there are not as many labels or features as windows.
    """

    def __init__(
        self,
        store: PatchStore,
        windows: Sequence[Window],
        patch_size: int,
        seed: int,
        labels: NDArray[np.int64] | None = None,
        features: NDArray[np.float32] | None = None,
    ) -> None:
        self.store = store
        self.windows = list(windows)
        self.patch_size = patch_size
        self.seed = seed
        self.labels = labels
        self.features = features
        for name, rows in (("labels", labels), ("features", features)):
            if rows is not None and len(rows) != len(self.windows):
                raise ValueError(f"{len(rows)} {name} for {len(self.windows)} windows; expected one for each")
        self.areas = np.array([window.height * window.width for window in self.windows], dtype=np.float64)
        self._bounds = shares_to_bounds(self.areas)
        self._length = max(1, int(self.areas.sum()) // patch_size**2)
        self._round = min(self._length, ROUND)
        self._order: tuple[int, torch.Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> PairBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int] | Sequence[tuple[int, int]]) -> PairBatch:
        """A batch of samples.

        Args:
            indices: running numbers; or, of each sample, the running number and the window to cut it from.

        Returns:
            uint8 (B, 3, patch, patch) and its LR; `index` is the running number.
        """
        given = torch.as_tensor(indices, dtype=torch.int64)
        numbers, told = given.unbind(1) if given.dim() == 2 else (given, None)
        draws = uniform(self.seed, "crop", numbers, 3)
        windows = windows_at(self._positions(numbers, draws[:, 0]), self._bounds) if told is None else told
        places = self._places(windows.tolist(), draws[:, 1:])
        return self._conditioned(cut(self.store, places, self.patch_size, numbers), windows.tolist())

    def positions(self, numbers: torch.Tensor) -> torch.Tensor:
        """Where samples lie in [0, 1), which windows share among them; evenly spread over each round.

        Args:
            numbers: running numbers, int64 (B,).

        Returns:
            float64 (B,).
        """
        return self._positions(numbers, uniform(self.seed, "crop", numbers)[:, 0])

    def _positions(self, numbers: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
        return ((self._slots(numbers) + within) / self._round).clamp(max=1 - 1e-12)

    def whole(self, numbers: Sequence[int]) -> PairBatch:
        """Windows as they are, uncropped.

        Args:
            numbers: of the windows, at least one.

        Returns:
            uint8 (B, 3, side, side) and its LR; `index` is the window's number.

        Raises:
            ValueError: when the windows are not squares of one size.
        """
        windows = [self.windows[number] for number in numbers]
        places = [(window.image, window.top, window.left) for window in windows]
        batch = cut(self.store, places, _common_side(windows), torch.as_tensor(numbers, dtype=torch.int64))
        return self._conditioned(batch, numbers)

    def _conditioned(self, batch: PairBatch, windows: Sequence[int]) -> PairBatch:
        """The batch with labels and features of the windows that its samples lie in."""
        return replace(batch, label=_rows(self.labels, windows), features=_rows(self.features, windows))

    def _places(self, windows: Sequence[int], draws: torch.Tensor) -> list[Place]:
        """Image, top and left (HR pixels, multiples of the scale), of each sample in its window, by (B, 2) draws."""
        places = []
        for window, (down, right) in zip(windows, draws.tolist(), strict=True):
            area, scale = self.windows[window], self.store.index.scale
            top = area.top + int(down * ((area.height - self.patch_size) // scale + 1)) * scale
            left = area.left + int(right * ((area.width - self.patch_size) // scale + 1)) * scale
            places.append((area.image, top, left))
        return places

    def _slots(self, numbers: torch.Tensor) -> torch.Tensor:
        """Position of each sample in its round's permutation; a round (mostly an epoch) covers all windows evenly."""
        slots = torch.empty(len(numbers), dtype=torch.float64)
        for turn in (numbers // self._round).unique().tolist():
            if self._order[0] != turn:
                span = torch.arange(self._round) + turn * self._round
                self._order = (turn, uniform(self.seed, "order", span).reshape(-1).argsort(stable=True))
            here = numbers // self._round == turn
            slots[here] = self._order[1][numbers[here] % self._round].double()
        return slots


def shares_to_bounds(shares: NDArray[np.float64]) -> torch.Tensor:
    """Where each window's part of [0, 1) ends: float64 (W,), the last of them 1.

    Args:
        shares: of the windows, (W,), 0 or more and not all 0; of any sum.
    """
    ends = np.cumsum(shares)
    return torch.from_numpy(ends / ends[-1])


def windows_at(positions: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """The windows whose parts of [0, 1) positions lie in: int64 (B,); never one without a share."""
    return torch.searchsorted(bounds, positions, right=True)


def _common_side(windows: Sequence[Window]) -> int:
    sizes = sorted({(window.height, window.width) for window in windows})
    if len(sizes) != 1 or sizes[0][0] != sizes[0][1]:
        found = ", ".join(f"{height} x {width}" for height, width in sizes[:SHOWN]) or "none"
        raise ValueError(
            "patches to read whole must be squares of one size; "
            f"found {found}{', ...' * (len(sizes) > SHOWN)} (height x width); choose square ones with SelectedPatches"
        )
    return sizes[0][0]


def _rows(values: NDArray[Any] | None, rows: Sequence[int]) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values[list(rows)])


def _channels_first(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
