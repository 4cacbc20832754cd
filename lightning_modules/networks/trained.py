"""A trained SR network from whatever file or folder holds it, with what is known of its training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.budget import DataBudget
from datamodules.fingerprint import digest_file
from lightning_modules.networks.build import NetworkSpec, build_network
from lightning_modules.networks.padding import pad_to
from lightning_modules.networks.weights import load_weights

RUN_WEIGHTS = ("checkpoints/best.ckpt", "weights.safetensors")
"""Files of a run folder that weights are taken from, the better one first."""

RECORDED = {
    "cost.json": ("training_seconds", "optimizer_steps"),
    "provenance.json": ("data_fingerprint", "data_budget"),
}
"""What is taken from the records of a run folder."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that is ready to upscale.

    Attributes:
        network: on the CPU, in evaluation mode, without gradients; (B, 3, H, W) to (B, 3, scale * H, scale * W), RGB in
            [0, 1], not always clipped.
        scale: of the network.
        sha256: of the file that the weights came from, in hex.
        record: of its training, where the file lies in a run folder, else empty: `training_seconds`,
            `optimizer_steps`, `data_fingerprint`, `data_budget` (values as in `DataBudget`), those that are known.
    """

    network: nn.Module
    scale: int
    sha256: str
    record: dict[str, Any]


def load_trained(path: str | Path) -> TrainedNetwork:
    """Load a trained network; nothing is unpickled.

    Args:
        path: a checkpoint of SuperResolution (its averaged weights, where EMA was on), an exported weights.safetensors,
            the folder of a run, or a file that spandrel recognises.

    Raises:
        FileNotFoundError: when there is no such file, or the folder holds no weights.
        ValueError: when the file cannot be read, it neither names its network nor does spandrel recognise it, or a
            record of its run is damaged.
    """
    file = find_weights(path)
    try:
        content, described = _read(file)
    except Exception as error:  # three libraries, each with errors of its own, that all mean this
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file} cannot be read as a file of tensors and plain values: {reason}") from error
    if {"network", "scale"} <= described.keys():
        network, scale = build_network(NetworkSpec(**described["network"]), described["scale"]), described["scale"]
        load_weights(network, file)
    else:
        network, scale = _recognised(content, file)
    return TrainedNetwork(network.eval().requires_grad_(False), scale, digest_file(file), training_record(file))


def find_weights(path: str | Path) -> Path:
    """The file that `load_trained` reads.

    Args:
        path: a file, or the folder of a run: then its best checkpoint, or its exported weights.

    Raises:
        FileNotFoundError: when there is no such file, or the folder holds no weights.
    """
    given = Path(path).expanduser()
    if given.is_file():
        return given
    if not given.is_dir():
        raise FileNotFoundError(f"there is no {path}; give a checkpoint, a weight file or the folder of a finished fit")
    for name in RUN_WEIGHTS:
        if (given / name).is_file():
            return given / name
    raise FileNotFoundError(
        f"{path} holds no {' and no '.join(RUN_WEIGHTS)}; give the folder of a finished fit, or a file"
    )


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors, wrapped as they are, and what the file says of their network."""
    if file.suffix != ".safetensors":
        content = dict(torch.load(file, map_location="cpu", weights_only=True))
        return content, content.get("hyper_parameters", {})
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        header = opened.metadata() or {}
        content = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # no mapping
    return content, {key: json.loads(header[key]) for key in ("network", "scale") if key in header}


def _recognised(content: dict[str, Any], file: Path) -> tuple[nn.Module, int]:
    """The network that spandrel takes the tensors for, and its scale."""
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    try:
        model = ModelLoader().load_from_state_dict(content)
    except (UnsupportedModelError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{file} does not say what network its weights are for, and spandrel does not know them; give a checkpoint "
            "or weights.safetensors of a run, or weights of an architecture of spandrel"
        ) from error
    if not isinstance(model, ImageModelDescriptor) or (model.input_channels, model.output_channels) != (3, 3):
        raise ValueError(f"{file} holds a {model.architecture.name}, which does not turn RGB images into RGB images")
    return _Recognised(model), model.scale


class _Recognised(nn.Module):
    """What spandrel's descriptor does, but with gradients and unclipped: pads to sides that some networks insist on."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.model = descriptor.model
        self._descriptor = descriptor

    def forward(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        padded = pad_to(lr, *self._descriptor.size_requirements.get_padding(width, height))
        # Some networks give more than the picture, which this takes; there is no public way to it with gradients.
        sr: Tensor = self._descriptor._call_fn(self.model, padded)  # noqa: SLF001
        return sr[..., : height * self._descriptor.scale, : width * self._descriptor.scale]


def training_record(weights: Path) -> dict[str, Any]:
    """What the run folder that a weight file lies in says of its training.

    Args:
        weights: RUN/checkpoints/ANY or RUN/ANY.

    Returns:
        As `TrainedNetwork.record`; empty where no run folder is.

    Raises:
        ValueError: when a record is damaged; the message names it.
    """
    folder = weights.absolute().parent
    folder = folder.parent if folder.name == "checkpoints" else folder
    known: dict[str, Any] = {}
    for name, keys in RECORDED.items():
        if (folder / name).is_file():
            content = _read_record(folder / name)
            known |= {key: content[key] for key in keys if content.get(key) is not None}
    return known


def _read_record(file: Path) -> dict[str, Any]:
    try:
        content = dict(json.loads(file.read_text(encoding="utf-8")))
        if content.get("data_budget") is not None:
            DataBudget(**content["data_budget"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}); restore it from a copy, or remove it") from error
    return content
