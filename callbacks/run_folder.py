"""Where a run writes."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer


def run_folder(trainer: Trainer) -> Path:
    """The run's folder, the same on all processes; call it on all of them, in a `setup` hook or later."""
    return Path(trainer.strategy.broadcast(trainer.default_root_dir))
