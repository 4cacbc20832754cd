"""Adapters on disk: the trained weights alone, beside a record of what they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.fingerprint import write_atomic
from lightning_modules.diffusion.adaptation import trainable_parameters

WEIGHTS, RECORD = "adapter.safetensors", "adapter.json"
SHOWN = 5  # tensors that an error lists
ABSENT = "nothing"
"""Stands in messages for a value that one of two records does not have."""

MEANING = {"base": "base (weights of model.pretrained and model.autoencoder)"}
"""What messages call a setting that users do not know by its key."""


def trainable_state(denoiser: nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable parameters, by the names of `named_parameters`."""
    return {name: parameter.detach().clone() for name, parameter in trainable_parameters(denoiser).items()}


def save_adapter(folder: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Writes `adapter.safetensors` and `adapter.json`, each under a temporary name that is then changed.

    Args:
        folder: where to write; made when missing.
        tensors: trained parameters by name, as `trainable_state` gives them (or their running averages).
        record: plain values that `load_adapter` compares: base model, adaptation, classes, conditioning, latent shape,
            prediction type.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{WEIGHTS}.{os.getpid()}"
    # clones: safetensors refuses tensors that share memory
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(state, temporary)
        temporary.replace(folder / WEIGHTS)
    finally:
        temporary.unlink(missing_ok=True)
    write_atomic(folder / RECORD, json.dumps(record, indent=2) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """The record of an adapter.

    Args:
        path: folder of the adapter, or its .safetensors.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when the record cannot be read.
    """
    file = _weights_file(path).with_name(RECORD)
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no {file}; an adapter is the pair {WEIGHTS} and {RECORD}, keep them together"
        )
    try:
        record = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not readable JSON ({error}); copy the adapter again from its run") from error
    if not isinstance(record, dict):
        raise ValueError(f"{file} holds a {type(record).__name__}, not a record; copy the adapter again from its run")
    return record


def load_adapter(path: Path, denoiser: nn.Module, record: Mapping[str, Any]) -> None:
    """Copies an adapter into a model that its adaptation has been applied to; nothing is unpickled.

    Everything is checked first: a model that cannot take the adapter is left as it was.

    Args:
        path: folder of the adapter, or its .safetensors, with the record beside it.
        denoiser: the adapted model.
        record: what the model is; it must equal the record of the adapter.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when a file is damaged, the records differ, a trainable parameter is missing from the file, the
            file holds one that the model does not train, or a shape differs.
    """
    file = _weights_file(path)
    check_record(file, read_record(path), record)
    tensors, parameters = _read_tensors(file), trainable_parameters(denoiser)
    check_tensors(file, tensors, parameters)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def check_record(origin: Path | str, saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compares what an adapter belongs to with what a model is, setting by setting.

    Args:
        origin: where the adapter comes from, for the message.
        saved: its record.
        expected: the model's.

    Raises:
        ValueError: when they differ; every setting that does is named.
    """
    ours, theirs = dict(_leaves(json.loads(json.dumps(expected)))), dict(_leaves(saved))
    differing = [
        f"{MEANING.get(key, key)} is {theirs.get(key, ABSENT)} there and {ours.get(key, ABSENT)} here"
        for key in sorted(ours.keys() | theirs.keys())
        if key not in ours or key not in theirs or ours[key] != theirs[key]
    ]
    if differing:
        raise ValueError(
            f"{origin} does not belong to this model: {'; '.join(differing)}; set what differs as it is there, or "
            "train an adapter for this model"
        )


def check_tensors(origin: Path | str, tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Compares names and shapes of saved tensors with those of the parameters that are to take them.

    Args:
        origin: where the tensors come from, for the message.
        tensors: what was saved.
        parameters: what the model trains.

    Raises:
        ValueError: when they differ; the first few differences are named.
    """
    lines = [f"{name}: missing from what was saved" for name in sorted(parameters.keys() - tensors.keys())]
    lines += [f"{name}: not a trainable parameter of this model" for name in sorted(tensors.keys() - parameters.keys())]
    lines += [
        f"{name}: saved with shape {tuple(tensor.shape)}, this model {tuple(parameters[name].shape)}"
        for name, tensor in tensors.items()
        if name in parameters and tensor.shape != parameters[name].shape
    ]
    if lines:
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise ValueError(
            f"{origin} does not fit this model; train an adapter for it: {'; '.join([*lines[:SHOWN], *more])}"
        )


def _weights_file(path: Path) -> Path:
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"there is no adapter {file}; give a folder that holds {WEIGHTS}, or that file")
    return file


def _read_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); copy the adapter again from its run") from error


def _leaves(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
