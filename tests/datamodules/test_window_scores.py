"""Scores of windows of any size, against scikit-image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.crops import CropDataset, Window
from datamodules.patch_store import Source, open_store
from datamodules.selection.criteria import GreyEntropy
from datamodules.window_scores import window_scores

WINDOWS = [Window(0, 0, 0, 48, 64), Window(0, 8, 4, 32, 32), Window(1, 0, 0, 40, 40), Window(1, 8, 8, 32, 32)]
WINDOWS += [Window(0, 16, 32, 32, 32)]


@pytest.fixture
def patches(photographs, tmp_path: Path) -> CropDataset:
    sources = [Source(name, photographs(name, size=size, first=first) / name)
               for first, (name, size) in enumerate({"a.png": (48, 64), "b.png": (40, 40)}.items())]  # fmt: skip
    return CropDataset(open_store(sources, 4, tmp_path / "cache"), WINDOWS, 32, seed=0)


def test_entropy_of_windows_is_that_of_scikit_image(patches, tmp_path):
    from skimage.measure import shannon_entropy

    found = window_scores(GreyEntropy(), patches, torch.device("cpu"))
    names = patches.store.index.names
    for window, score in zip(WINDOWS, found, strict=True):
        box = (window.left, window.top, window.left + window.width, window.top + window.height)
        grey = Image.open(tmp_path / "photos" / names[window.image]).convert("L").crop(box)
        assert score == pytest.approx(shannon_entropy(np.asarray(grey)), abs=1e-5)
    assert len(set(found.tolist())) == len(WINDOWS)


def test_scores_are_computed_once(patches, monkeypatch):
    first = window_scores(GreyEntropy(), patches, torch.device("cpu"))
    monkeypatch.setattr(GreyEntropy, "__call__", lambda *_: pytest.fail("scored again"))
    assert np.array_equal(window_scores(GreyEntropy(), patches, torch.device("cpu")), first)
    fewer = CropDataset(patches.store, WINDOWS[1:], 32, seed=0)
    with pytest.raises(pytest.fail.Exception, match="scored again"):
        window_scores(GreyEntropy(), fewer, torch.device("cpu"))
