"""Small photographs on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.patch_store import PatchStore, Source, open_store

MakePhotographs = Callable[..., Path]


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth random colours, uint8 (H, W, 3): noise enlarged eight times."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def photographs(tmp_path: Path) -> MakePhotographs:
    """`photographs("a.png", "b/c.png", size=(48, 64), folder="x")` writes different pictures; returns the folder."""

    def make(*names: str, size: tuple[int, int] = (48, 64), folder: str = "photos", first: int = 0) -> Path:
        for seed, name in enumerate(names, first):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(seed, *size)).save(path)
        return tmp_path / folder

    return make


@pytest.fixture
def position_store(tmp_path: Path) -> Callable[..., PatchStore]:
    """A store of images of these (H, W) whose red is their number, green the row and blue the column."""

    def make(sizes: list[tuple[int, int]], scale: int = 4) -> PatchStore:
        sources = []
        for number, (height, width) in enumerate(sizes):
            rows, columns = np.mgrid[:height, :width]
            pixels = np.stack([np.full_like(rows, number), rows, columns], axis=2).astype(np.uint8)
            sources.append(Source(f"{number:03}.png", tmp_path / f"{number:03}.png"))
            Image.fromarray(pixels).save(sources[-1].path)
        return open_store(sources, scale, tmp_path / "cache")

    return make
