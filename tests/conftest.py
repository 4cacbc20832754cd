"""Shared fixtures. Every test runs on one torch thread: two contend on small machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
os.environ.setdefault("WANDB_MODE", "disabled")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with Set5, Set14, BSD100 and BSD400, named by SRDISTILL_DATA."""
    if not os.environ.get("SRDISTILL_DATA"):
        pytest.skip("SRDISTILL_DATA is not set")
    return Path(os.environ["SRDISTILL_DATA"])


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of one test never meet those of another, or the user's."""
    monkeypatch.setenv("SRDISTILL_CACHE", str(tmp_path / "cache"))
