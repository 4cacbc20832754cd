"""What runs leave for others: checkpoints, and folders beside them (pipeline, adapter, generator, latents)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning import LightningModule
from torch import Tensor


def newest(folder: Path, part: str) -> Path:
    """What a run wrote: in a run's folder, or that of the newest run of an experiment; else `folder` itself.

    Args:
        folder: runs/EXPERIMENT/fit/NAME or runs/EXPERIMENT, or anything else.
        part: name of it in the run's folder.
    """
    runs = [folder / part, *sorted(folder.glob(f"fit/*/{part}"), key=lambda path: path.stat().st_mtime, reverse=True)]
    return next((path for path in runs if path.exists()), folder)


def refuse_other_shapes(saved: Mapping[str, Tensor], module: LightningModule, same: str) -> None:
    """Makes sure that a checkpoint's weights are those of a module.

    Args:
        saved: state dict of the checkpoint.
        module: that is to take it.
        same: settings that decide the shapes, for the message.

    Raises:
        ValueError: when a tensor is missing, or has another shape.
    """
    shapes = {name: tensor.shape for name, tensor in saved.items()}
    other = [name for name, tensor in module.state_dict().items() if shapes.get(name) != tensor.shape]
    if other:
        raise ValueError(
            f"the file is no checkpoint of this {type(module).__name__}: {other[0]} is missing there, or has another "
            f"shape ({len(other)} such); give one with the same {same}"
        )
