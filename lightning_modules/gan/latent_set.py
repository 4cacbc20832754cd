"""Latents on disk: one tensor, beside a record of the generator, classes and real patches that they belong to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.fingerprint import write_atomic

LATENTS = "latents"
"""Folder of a run that holds what it found."""

TENSOR, RECORD = "latents.safetensors", "latents.json"
KEYS = ("labels", "generator", "inversion_psnr", "seed", "sources", "data")
"""Of the record: what `LatentSet` has beside the tensor."""


@dataclass(frozen=True)
class LatentSet:
    """Latents and what they are.

    Attributes:
        latents: (N, *latent_shape), in the dtype that they are stored in.
        labels: class of each.
        generator: see `GeneratorSpec.record`.
        inversion_psnr: mean over the set, dB, after inversion; None where nothing was inverted.
        seed: of where they began.
        sources: photograph that each began at; None for latents that began at random.
        data: fingerprint of all the photographs.
    """

    latents: Tensor
    labels: list[int]
    generator: dict[str, Any]
    inversion_psnr: float | None = None
    seed: int | None = None
    sources: list[str] | None = None
    data: str | None = None


def save_latents(folder: Path, found: LatentSet) -> None:
    """Writes tensor and record, each under a temporary name that is then changed."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{TENSOR}.{uuid.uuid4().hex[:8]}"
    try:
        save_file({"latents": found.latents.detach().cpu().contiguous()}, unfinished)
        unfinished.replace(folder / TENSOR)
    finally:
        unfinished.unlink(missing_ok=True)
    record = {key: getattr(found, key) for key in KEYS}
    write_atomic(folder / RECORD, json.dumps(record, indent=2) + "\n")


def load_latents(folder: Path) -> LatentSet:
    """Reads what `save_latents` wrote; nothing is unpickled.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when one is damaged, or they do not fit each other.
    """
    for name in (TENSOR, RECORD):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {folder / name}; give the folder of a finished run of configs/distill/gsdd/invert.yaml"
            )
    latents, record = _read_tensor(folder / TENSOR), _read_record(folder / RECORD)
    if len(record["labels"]) != len(latents):
        raise ValueError(
            f"{folder} has {len(latents)} latents and {len(record['labels'])} labels; its files do not belong together"
        )
    return LatentSet(latents, **record)


def _read_tensor(file: Path) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        latents = load_file(file)["latents"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{file} is damaged ({error}); copy it again from its run") from error
    if not torch.isfinite(latents).all():
        raise ValueError(f"{file} has numbers that are not finite; make the latents again")
    return latents


def _read_record(file: Path) -> Mapping[str, Any]:
    try:
        record: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return {key: record[key] for key in KEYS}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}); copy it again from its run") from error
