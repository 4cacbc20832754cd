"""ComplexityViT: a Vision Transformer of timm that estimates the entropy of a picture from a copy of fixed size."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.selection.features.image_input import ImageInput
from datamodules.selection.features.timm_backbone import HUB_NAMES, hub_weights, load_backbone, timm_configuration
from datamodules.weight_files import reading


@dataclass(frozen=True)
class ViTSpec:
    """A Vision Transformer.

    Attributes:
        model: timm's name, with a tag where there are several sets of weights: vit_base_patch16_224.augreg_in21k.
        side: in pixels of the square copy of each patch that it sees, a multiple of the side of its tokens. Published
            are 128 x 128 copies (TripleD, arXiv 2504.14826).
        options: of timm's VisionTransformer that differ from the model's own: patch_size (side of a token),
            embed_dim, depth, num_heads ...
    """

    model: str = "vit_base_patch16_224"
    side: int = 128
    options: dict[str, Any] = field(default_factory=dict)


class ComplexityViT(nn.Module):
    """Estimates of entropy in bits.

    Args:
        spec: of the network.
        pretrained: true starts from the weights that timm names for the model, a path from those of a file of it, or of
            a folder that holds one; false from random ones.

    Raises:
        FileNotFoundError: when weights are neither on this machine nor to be had.
        ModuleNotFoundError: when timm is not installed.
        ValueError: when timm has no such Vision Transformer, the weights do not fit, or it cannot see such copies.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: ViTSpec, pretrained: bool | str = False) -> None:
        super().__init__()
        try:
            import timm
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'Vision Transformers are timm\'s, which is not installed: pip install "srdistill[features]"'
            ) from error
        known = timm_configuration(spec.model)
        self.vit = _random(spec) if pretrained is False else _trained(spec, pretrained)
        config = timm.data.resolve_data_config(pretrained_cfg=known.to_dict())
        self._input = ImageInput((spec.side, spec.side), config["mean"], config["std"], "bicubic")
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def set_unit(self, bits: Tensor) -> None:
        """Estimates become multiples of the standard deviation of these entropies (B,), from their mean."""
        self.mean.fill_(bits.mean())
        deviation = bits.std(correction=0)
        self.deviation.fill_(deviation if deviation > 0 else 1.0)

    def forward(self, patches: Tensor) -> Tensor:
        """Estimated entropy of pictures, which are resized to the side of the copy, with antialiasing.

        Args:
            patches: float RGB in [0, 1], (B, 3, H, W).

        Returns:
            float32, (B,), in bits.
        """
        return self.mean + self.deviation * self._input.through(self.vit, patches).squeeze(1)


def _random(spec: ViTSpec) -> Any:
    import timm

    try:
        network = timm.create_model(spec.model, img_size=spec.side, num_classes=1, **spec.options)
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"model.vit: timm cannot build {spec.model} for {spec.side} pixels with options {spec.options}: {reason}"
        ) from error
    return _checked(network, spec)


def _trained(spec: ViTSpec, pretrained: bool | str) -> Any:
    path = _weights(spec.model, pretrained)
    with reading(path):
        network = load_backbone(spec.model, path, **spec.options)
    _checked(network, spec)
    network.set_input_size(img_size=spec.side)  # position embeddings are resampled
    network.reset_classifier(1)
    network.pretrained_cfg = network.default_cfg = {}  # they hold the state dict a second time
    return network


def _weights(model: str, pretrained: bool | str) -> Path:
    instead = "set model.pretrained to a .safetensors file of the model, or to false"
    if not isinstance(pretrained, str):
        return hub_weights(model, instead)
    given = Path(pretrained).expanduser()
    files = [given, *(given / name for name in HUB_NAMES)]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"model.pretrained: {given} is no file and no folder with a {HUB_NAMES[0]}; {instead}")
    return found


def _checked(network: Any, spec: ViTSpec) -> Any:
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(network, VisionTransformer):
        raise ValueError(
            f"model.vit.model is {spec.model}, a {type(network).__name__}; expected a Vision Transformer of timm, "
            "such as vit_base_patch16_224"
        )
    if not network.global_pool:
        raise ValueError("model.vit.options: global_pool is '', which gives no vector; expected avg, token, max or map")
    token = network.patch_embed.patch_size[0]
    if spec.side < token or spec.side % token:
        raise ValueError(
            f"model.vit.side is {spec.side}, but tokens of {spec.model} have {token} pixels; expected a multiple "
            f"of it, such as {max(1, spec.side // token) * token}"
        )
    return network
