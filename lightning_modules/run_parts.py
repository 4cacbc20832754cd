"""Folders that a run writes beside its checkpoints, and other runs read: pipeline, adapter, generator, latents."""

from __future__ import annotations

from pathlib import Path


def newest(folder: Path, part: str) -> Path:
    """A folder that a run wrote: that of a run's folder, or of the newest run of an experiment's; else `folder` itself.

    Args:
        folder: runs/EXPERIMENT/fit/NAME or runs/EXPERIMENT, or anything else.
        part: name of the folder in the run's.
    """
    runs = [folder / part, *sorted(folder.glob(f"fit/*/{part}"), key=lambda path: path.stat().st_mtime, reverse=True)]
    return next((path for path in runs if path.is_dir()), folder)
