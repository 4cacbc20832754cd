"""Image encoders of open_clip: CLIP and its successors."""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.fingerprint import digest_file
from datamodules.selection.features.image_input import ImageInput, check_image_size
from datamodules.selection.interfaces import Features
from datamodules.weight_files import hub_file, reading

FOLDER_CONFIG = "open_clip_config.json"


class OpenCLIP(Features):
    """Image embedding of a CLIP model, of unit length: patches that show alike things lie close.

    Patches are resized to the model's input and scaled with its mean and standard deviation: those of the tag or of the
    folder; with a checkpoint file, which says nothing of them, OpenAI's, as open_clip itself does. Weights are read
    without unpickling.

    Args:
        model: open_clip's name of the architecture. OpenAI's weights need a `-quickgelu` one. Not looked at when
            `pretrained` is a folder, whose configuration says what it holds.
        pretrained: one of open_clip's tags for the model, got from the cache of the Hugging Face hub or from the hub;
            or a checkpoint file; or a folder with open_clip_config.json and weights, as on the hub.
        image_size: side in pixels that patches are resized to, position embeddings along with it; null for the size
            that the model was trained with.

    Raises:
        ValueError: when no weights are named, which would make features of a random network, or the size is not
            positive.
    """

    def __init__(
        self, model: str = "ViT-B-32-quickgelu", pretrained: str = "openai", image_size: int | None = None
    ) -> None:
        if not pretrained:
            raise ValueError(
                f"pretrained is {pretrained!r}, and an untrained network makes no features; "
                "name one of open_clip's tags (openai), a checkpoint file, or a folder"
            )
        check_image_size(image_size)
        self.model = model
        self.pretrained = pretrained
        self.image_size = image_size
        self._encode: Any = None
        self._input: ImageInput | None = None

    def identity(self) -> dict[str, Any]:
        """Settings, and the digests of local weights."""
        path = Path(self.pretrained).expanduser()
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        return super().identity() | {"sha256": [digest_file(file) for file in files if file.is_file()]}

    def load(self, device: torch.device) -> None:
        """Reads the weights.

        Raises:
            FileNotFoundError: when they are neither on this machine nor to be had.
            ValueError: when model or tag are unknown, do not belong together, or the weights do not fit.
        """
        network = self._network().eval().requires_grad_(False).to(device)
        config = network.visual.preprocess_cfg
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else size
        self._input = ImageInput((height, width), tuple(config["mean"]), tuple(config["std"]), config["interpolation"])
        self._encode = partial(network.encode_image, normalize=True)

    def __call__(self, hr: Tensor) -> Tensor:
        """Embeddings of a batch of patches.

        Args:
            hr: float32 RGB in [0, 1], (B, 3, side, side), on the device of `load`.

        Returns:
            float32, (B, D), of unit length.
        """
        assert self._input is not None, "load comes first"
        return self._input.through(self._encode, hr)

    def _network(self) -> Any:
        path = Path(self.pretrained).expanduser()
        if path.is_dir():
            return _from_folder(path, self.image_size)
        tag = None
        if not path.is_file():
            tag = _tag(self.model, self.pretrained)
            path = _tagged_weights(tag)
        with reading(path):
            return _create(self.model, self.image_size, pretrained=str(path), force_preprocess_cfg=tag)


def _create(model: str, image_size: int | None, **options: Any) -> Any:
    import open_clip

    return open_clip.create_model(
        model, force_image_size=image_size, require_pretrained=True, weights_only=True, **options
    )


def _from_folder(folder: Path, image_size: int | None) -> Any:
    if not (folder / FOLDER_CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder}: no {FOLDER_CONFIG}; expected a folder in open_clip's format "
            "(config.json is that of transformers, which is another), or name a checkpoint file"
        )
    with reading(folder):
        return _create(f"local-dir:{folder}", image_size)


def _tag(model: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of the tag, once it is known to belong to the model."""
    import open_clip

    architecture = open_clip.get_model_config(model)
    if architecture is None:
        similar = get_close_matches(model, open_clip.list_models(), 5, 0.3)
        raise ValueError(f"model {model!r} is unknown to open_clip; among the known are {', '.join(similar)}")
    known = open_clip.get_pretrained_cfg(model, tag)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"pretrained is {tag!r}: no file, no folder and no tag of {model}, whose tags are {tags}")
    if bool(known.get("quick_gelu")) != bool(architecture.get("quick_gelu")):
        base = model.removesuffix("-quickgelu")
        raise ValueError(
            f"{tag} was not trained with the activation of {model}, which would spoil its features; "
            f"set model to {base if base != model else base + '-quickgelu'}"
        )
    return known


def _tagged_weights(tag: dict[str, Any]) -> Path:
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repo, _, name = tag["hf_hub"].rpartition("/")
    names = [str(Path(name).with_suffix(".safetensors")), name] if name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    instead = "set pretrained to a checkpoint file or folder on this machine, or use Descriptor, which needs none"
    return hub_file(repo, names, instead)
