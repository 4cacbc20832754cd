"""Samples that were made before: a crash, a larger budget or another choice among them costs no second sampling."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.distilled import Pixels
from lightning_modules.requests import Request


class SampleCache:
    """Sampled patches in files, by everything that decides them.

    Args:
        folder: the cache; deleting it is always safe.
        identity: plain values that the samples follow from, but for label and number.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.folder = folder / "samples" / digest[:32]

    def get(self, request: Request) -> tuple[Pixels, float] | None:
        """Pixels, uint8 (H, W, 3), and the seconds that they took; None when they are not there, or damaged."""
        try:
            with np.load(self._path(request), allow_pickle=False) as saved:
                return saved["hr"], float(saved["seconds"])
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
            return None

    def put(self, request: Request, hr: Pixels, seconds: float) -> None:
        """Keeps a sample, under its name only when it is complete."""
        path = self._path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        with unfinished.open("wb") as file:
            np.savez(file, hr=hr, seconds=np.float64(seconds))
        unfinished.replace(path)

    def _path(self, request: Request) -> Path:
        return self.folder / f"{request.label}-{request.number}.npz"


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
