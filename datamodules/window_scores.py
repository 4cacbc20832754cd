"""Scores of the windows that training draws from: computed once, size by size, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch

from datamodules.crops import CropDataset, cut
from datamodules.progress import progress_bar
from datamodules.selection.candidates import BATCH_PIXELS
from datamodules.selection.computed import SCORE_BITS, cached_rows, exact_inference, rounded
from datamodules.selection.interfaces import Criterion, Floats

FORMAT = 1


def window_scores(criterion: Criterion, patches: CropDataset, device: torch.device) -> Floats:
    """Scores of all windows of a dataset, rounded to six decimal digits, as those of a selection's candidates are.

    They lie in the cache, beside the decoded images, in `scores/`; of several processes one computes.

    Args:
        criterion: what to compute.
        patches: of which windows; they may be of different sizes.
        device: to compute on.

    Returns:
        float64 (W,), memory-mapped and read-only.

    Raises:
        OSError: when the cache cannot be written or is full.
        ValueError: when a score is not finite, or the file in the cache is damaged.
    """
    path = _cache(patches) / "scores" / f"{_key(criterion, patches)}.npy"
    return cached_rows(path, len(patches.windows), _scored(criterion, patches, device), type(criterion).__name__)


def digest_windows(patches: CropDataset) -> str:
    """SHA-256 of where the windows lie, in hex; which photographs they lie in is not part of it."""
    windows = np.array([astuple(window) for window in patches.windows], dtype=np.int64)
    return hashlib.sha256(windows.tobytes()).hexdigest()


def _scored(criterion: Criterion, patches: CropDataset, device: torch.device) -> Iterator[Floats]:
    """All scores at once: windows of one size are not neighbours, and rows of the cache are consecutive."""
    scores = np.empty(len(patches.windows))
    batches = list(_batches(patches))
    with progress_bar("scoring what training draws from", len(batches)) as advance:
        for size, numbers in batches:
            places = [(window.image, window.top, window.left) for window in (patches.windows[n] for n in numbers)]
            pairs = cut(patches.store, places, size, torch.tensor(numbers))
            with exact_inference():
                scores[numbers] = criterion(pairs.to(device)).cpu().double().numpy()
            advance()
    yield rounded(scores, SCORE_BITS)


def _batches(patches: CropDataset) -> Iterator[tuple[tuple[int, int], Sequence[int]]]:
    """Numbers of windows of one size, (height, width), as many as fit into bounded memory."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for number, window in enumerate(patches.windows):
        by_size.setdefault((window.height, window.width), []).append(number)
    for size, numbers in by_size.items():
        step = max(1, BATCH_PIXELS // (size[0] * size[1]))
        yield from ((size, numbers[start : start + step]) for start in range(0, len(numbers), step))


def _cache(patches: CropDataset) -> Path:
    return patches.store.folder.parent.parent


def _key(criterion: Criterion, patches: CropDataset) -> str:
    content = [FORMAT, "windows", patches.store.folder.name, digest_windows(patches), criterion.identity()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
