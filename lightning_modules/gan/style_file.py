"""The compact style-based generator on disk: its weights beside its sizes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.weight_files import reading
from lightning_modules.networks.style_generator import StyleGenerator, StyleSpec
from lightning_modules.run_parts import fingerprint, newest, refuse_missing

GENERATOR = "generator"
"""Folder of a run that holds the generator that it trained."""

WEIGHTS, CONFIG = "generator.safetensors", "config.json"
ARCHITECTURE = "StyleGenerator"


def save_style_generator(generator: StyleGenerator, folder: Path) -> None:
    """Writes `generator.safetensors` and `config.json` into a new folder, complete or not at all."""
    from safetensors.torch import save_file

    config = {"architecture": ARCHITECTURE, "side": generator.side, "spec": dataclasses.asdict(generator.spec)}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    unfinished.mkdir(parents=True)
    try:
        save_file(state, unfinished / WEIGHTS)
        (unfinished / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def load_style_generator(folder: str | Path) -> StyleGenerator:
    """The generator of a folder, float32 on the CPU; of each tensor it is made sure that the file has it, finite.

    Args:
        folder: that `save_style_generator` wrote, or of the run that did, or of its experiment, whose newest run it is
            then.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when one is damaged, or they do not belong together.
    """
    from safetensors.torch import load_file

    found = _find(folder)
    with torch.device("meta"):  # sizes that a damaged file gives are compared before they take memory
        generator = _build(found / CONFIG)
    with reading(found / WEIGHTS):
        tensors = load_file(found / WEIGHTS)
    _check(found / WEIGHTS, tensors, generator.state_dict())
    generator.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return generator.eval()


def style_fingerprint(folder: str | Path) -> str:
    """SHA-256 of the files that `load_style_generator` reads, by which latents know their generator.

    Raises:
        FileNotFoundError: when one is missing.
    """
    return fingerprint(_find(folder), (CONFIG, WEIGHTS))


def _find(folder: str | Path) -> Path:
    found = newest(Path(folder).expanduser(), GENERATOR)
    refuse_missing(found, (CONFIG, WEIGHTS), GENERATOR, "gsdd/prior.yaml")
    return found


def _build(path: Path) -> StyleGenerator:
    try:
        config: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        if config["architecture"] != ARCHITECTURE:
            raise ValueError(f"architecture is {config['architecture']!r}; expected {ARCHITECTURE!r}")
        return StyleGenerator(StyleSpec(**config["spec"]), config["side"])
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); get the folder anew") from error


def _check(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    for keys, what in ((missing, "has no"), (unknown, "has an unknown")):
        if keys:
            raise ValueError(f"{path} {what} tensor {keys[0]} ({len(keys)} such); get the folder anew")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{path}: tensor {name} has shape {tuple(tensor.shape)} but {CONFIG} beside it asks for "
                f"{tuple(expected[name].shape)}; its files do not belong together"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: the weights {name} are not finite; get the folder anew")
