"""Reading and writing the weights of a network: tensors only, nothing is unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

WRAPPERS = ("state_dict", "params_ema", "params", "model")  # keys under which the field's checkpoints hold weights
PREFIXES = ("module.", "_orig_mod.", "network.")  # left behind by DDP, torch.compile and our LightningModules
SHOWN = 3  # keys of each sort that an error lists


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load weights for exactly this network, whatever common wrapping they come in.

    Understood are bare state dicts, the wrappings `params_ema`, `params` and `model`, the prefixes of DDP and
    torch.compile, checkpoints of our own LightningModules, and, for spandrel's networks, the key names of other
    implementations that spandrel converts.

    Args:
        network: takes the weights in place.
        path: a .safetensors file, or a .pth, .pt or .ckpt of tensors and plain values.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file cannot be read safely, or keys or shapes differ; the first few are named.
    """
    content = _read(Path(path))
    state = dict(content) if content.keys() == network.state_dict().keys() else _unwrap(content)
    if _differences(network, state):
        state = _converted(network, state)
    differences = _differences(network, state)
    if differences:
        raise ValueError(
            f"the weights in {path} do not fit {type(network).__name__}: {'; '.join(differences)}. "
            "Give the network the options it was trained with, or another file"
        )
    network.load_state_dict(state)


def export_weights(network: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a network's state dict as safetensors with bare keys, which spandrel loads where it knows the network.

    The file appears under its name only when it is complete.

    Args:
        network: on any device.
        path: of the file; its folder is created.
        metadata: texts for the file's header.
    """
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    # clones: safetensors refuses tensors that share memory or are views
    state = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in network.state_dict().items()}
    try:
        save_file(state, unfinished, metadata=dict(metadata or {}))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as a file of tensors and plain values: {reason}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def _unwrap(content: Mapping[str, Any]) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if any(key.startswith("network.") for key in content):  # a LightningModule's: the rest belongs to other parts of it
        content = {key: value for key, value in content.items() if key.startswith("network.")}
    return {_bare(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _bare(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def _differences(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with a state dict, a phrase per sort of mistake."""
    expected = network.state_dict()
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    sorts = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": wrong,
    }
    return [
        f"{len(keys)} {sort} ({', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"
        for sort, keys in sorts.items()
        if keys
    ]


def _converted(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under spandrel's key names, if it recognises them as this class; else unchanged."""
    if not type(network).__module__.startswith("spandrel"):
        return state
    from spandrel import ModelLoader, UnsupportedModelError

    try:
        model = ModelLoader().load_from_state_dict(dict(state)).model
    except (UnsupportedModelError, RuntimeError, KeyError, ValueError):
        return state
    return model.state_dict() if type(model) is type(network) else state
