"""What runs leave for others: checkpoints, and folders beside them (pipeline, adapter, generator, latents)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning import LightningModule
from torch import Tensor

from datamodules.fingerprint import digest_file


def newest(folder: Path, part: str) -> Path:
    """What a run wrote: in a run's folder, or that of the newest run of an experiment; else `folder` itself.

    Args:
        folder: runs/EXPERIMENT/fit/NAME or runs/EXPERIMENT, or anything else.
        part: name of it in the run's folder.
    """
    runs = [folder / part, *sorted(folder.glob(f"fit/*/{part}"), key=lambda path: path.stat().st_mtime, reverse=True)]
    return next((path for path in runs if path.exists()), folder)


def refuse_missing(folder: Path, files: Sequence[str], part: str, config: str) -> None:
    """Makes sure that a folder holds a network.

    Args:
        folder: of the network.
        files: names of its files.
        part: name of such a folder in a run's.
        config: whose runs write it, below configs/distill.

    Raises:
        FileNotFoundError: when a file is missing.
    """
    for name in files:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {folder / name}; give the folder of a run of configs/distill/{config} (it writes "
                f"{part}/ when fit has ended)"
            )


def fingerprint(folder: Path, files: Sequence[str]) -> str:
    """SHA-256, in hex, of names and content of files of a folder, in the order given."""
    digests = [[name, digest_file(folder / name)] for name in files]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


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
