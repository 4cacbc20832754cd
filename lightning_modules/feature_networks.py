"""What real and synthetic patches are compared by: networks, with frozen weights, that make vectors of patches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.bicubic import downscale
from datamodules.randomness import generators
from datamodules.selection.interfaces import Features
from lightning_modules.networks.trained import TrainedNetwork, load_trained

COLOUR_MEAN = (0.485, 0.456, 0.406)
COLOUR_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's photographs, per channel of RGB in [0, 1]."""

PROBE_SIDE = 32
"""LR pixels: a multiple of the common window sizes, so that few networks have to pad it."""

_TINY = 1e-12  # variance below which a channel counts as constant: the root has no derivative at 0


class FeatureNetwork(nn.Module, ABC):
    """A vector per patch, by frozen weights; gradients reach the patches.

    Attributes:
        channels: of the feature maps (channels, H, W) that the vectors are flattened from; None where they are pooled.
    """

    channels: int | None = None

    @abstractmethod
    def embed(self, patches: Tensor) -> Tensor:
        """What `forward` returns, before it is checked; float32, (B, ...)."""

    def forward(self, patches: Tensor) -> Tensor:
        """Vectors of patches, computed in float32, also under autocast.

        Args:
            patches: float32 RGB in [0, 1], (B, 3, side, side).

        Returns:
            float32, (B, D).

        Raises:
            ValueError: when a vector is not finite, or patches are too small or of a size that does not fit.
        """
        with torch.autocast(patches.device.type, enabled=False):
            vectors = self.embed(patches).flatten(1).float()
        if not vectors.isfinite().all():
            raise ValueError(_not_finite(type(self).__name__, patches, vectors))
        return vectors


def _not_finite(name: str, patches: Tensor, vectors: Tensor) -> str:
    """What to say, and what to do about it."""
    wrong = len(vectors) - int(vectors.isfinite().all(1).sum())
    if patches.isfinite().all():
        reason = "though the patches are; check the weights of model.features"
    else:
        reason = "nor are the patches: latents have run away; lower the learning rate, or use another model.generator"
    return f"{name}: features of {wrong} of {len(vectors)} patches are not finite, {reason}"


class MatchingFeatures(ABC):
    """Gives the feature network of a step; plain values in the constructor, which reads no file."""

    @abstractmethod
    def network(self, step: int, seed: int, device: torch.device) -> FeatureNetwork:
        """The network that all patches of a step go through.

        Args:
            step: of the run.
            seed: of the run; where weights are random, they are a function of seed and step.
            device: where patches are.
        """


class RandomConvNet(MatchingFeatures):
    """A ConvNet with random weights, drawn anew for every step (Zhao and Bilen, WACV 2023, arXiv 2110.04181).

    Blocks of 3x3 convolution, instance normalisation, ReLU and 2x2 average pooling; the last one's output, flattened,
    is the vector: (B, width * (side / 2^depth)^2). Patches are standardised by the colours of ImageNet, as there.

    Args:
        width: channels.
        depth: blocks; a patch needs a side of 2^depth pixels at least.

    Raises:
        ValueError: when one of them is below 1.
    """

    def __init__(self, width: int = 128, depth: int = 3) -> None:
        for name, value in (("width", width), ("depth", depth)):
            if value < 1:
                raise ValueError(f"{name} of RandomConvNet is {value}; expected 1 or more")
        self.width = width
        self.depth = depth

    def network(self, step: int, seed: int, device: torch.device) -> FeatureNetwork:
        """A network of its own for each step."""
        (generator,) = generators(seed, "matching network", [step])
        return _ConvNet(self.width, self.depth, generator).eval().requires_grad_(False).to(device)


class _ConvNet(FeatureNetwork):
    mean: Tensor
    std: Tensor

    def __init__(self, width: int, depth: int, generator: torch.Generator) -> None:
        super().__init__()
        self.smallest, self.channels = 2**depth, width
        self.register_buffer("mean", torch.tensor(COLOUR_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(COLOUR_STD)[:, None, None])
        blocks = [_block(*pair, generator) for pair in pairwise([3] + [width] * depth)]
        self.blocks = nn.Sequential(*blocks)

    def embed(self, patches: Tensor) -> Tensor:
        if min(patches.shape[-2:]) < self.smallest:
            raise ValueError(
                f"patches of {patches.shape[-1]} pixels are too small for RandomConvNet; give it a smaller depth, or "
                f"set data.patch_size to {self.smallest} or more"
            )
        vectors: Tensor = self.blocks((patches - self.mean) / self.std)
        return vectors


def _block(channels: int, width: int, generator: torch.Generator) -> nn.Sequential:
    # no bias: instance normalisation takes it away; skip_init: a constructor would draw from the global generator
    convolution = nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
    return nn.Sequential(convolution, nn.InstanceNorm2d(width), nn.ReLU(), nn.AvgPool2d(2))


class SRFeatures(MatchingFeatures):
    """What a trained SR network knows of a patch's LR before it upsamples: mean and deviation of each channel.

    The patch is reduced by bicubic interpolation. Of the network's feature maps those are taken that its last layer
    with weights at LR size receives, which is found by one pass of a grey image: in EDSR, SwinIR and others what the
    convolution before the pixel shuffle gets, in ESRGAN what leaves the last residual block.

    Args:
        network: a checkpoint of SuperResolution, exported weights, the folder of a run, or a file that spandrel
            recognises; read on first use.
    """

    def __init__(self, network: str) -> None:
        self.path = network
        self._network: _BeforeUpsampling | None = None

    def network(self, step: int, seed: int, device: torch.device) -> FeatureNetwork:
        """The same for all steps.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it holds no network, or one without feature maps of LR size.
        """
        if self._network is None:
            self._network = _BeforeUpsampling(load_trained(self.path), self.path)
        return self._network.to(device)


class _BeforeUpsampling(FeatureNetwork):
    def __init__(self, trained: TrainedNetwork, path: str) -> None:
        super().__init__()
        self.network = trained.network
        self.scale = trained.scale
        self.path = path
        self._vectors: list[Tensor] = []
        _last_lr_layer(trained.network, path).register_forward_pre_hook(self._pool)

    def embed(self, patches: Tensor) -> Tensor:
        if patches.shape[-2] % self.scale or patches.shape[-1] % self.scale:
            raise ValueError(
                f"patches of {patches.shape[-1]} pixels have no LR for {self.path}, which upscales by {self.scale}; "
                f"set data.patch_size to a multiple of {self.scale}"
            )
        self.network(downscale(patches, self.scale))
        vectors = self._vectors[-1]  # a layer may be called several times
        self._vectors.clear()
        return vectors

    def _pool(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps = inputs[0].flatten(2)
        deviation = maps.var(2, correction=0).clamp(min=_TINY).sqrt()
        self._vectors.append(torch.cat([maps.mean(2), deviation], dim=1))


def _last_lr_layer(network: nn.Module, path: str) -> nn.Module:
    """The module with weights that is the last to be given square feature maps of LR size."""
    found: list[nn.Module] = []
    hook = partial(_note_lr_layer, found)
    handles = [module.register_forward_pre_hook(hook) for module in network.modules() if _has_weights(module)]
    try:
        with torch.no_grad():
            network(torch.full((1, 3, PROBE_SIDE, PROBE_SIDE), 0.5))
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(f"{path}: no layer of its network is given feature maps of LR size; use other model.features")
    return found[-1]


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _note_lr_layer(found: list[nn.Module], module: nn.Module, inputs: tuple[Any, ...]) -> None:
    maps = inputs[0] if inputs else None
    if not isinstance(maps, Tensor) or maps.ndim != 4 or maps.shape[1] <= 3:  # the image itself has 3 channels
        return
    height, width = maps.shape[-2:]
    if height == width and PROBE_SIDE <= width < 2 * PROBE_SIDE:  # larger than the probe where networks pad it
        found.append(module)


class EncoderFeatures(MatchingFeatures):
    """Features of `datamodules.selection` (timm, open_clip, Descriptor), differentiated.

    Args:
        features: must be differentiable in the patches.
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        self._loaded_on: torch.device | None = None

    def network(self, step: int, seed: int, device: torch.device) -> FeatureNetwork:
        """The same for all steps.

        Raises:
            FileNotFoundError: when its weights are not to be had.
            ValueError: when they do not fit.
        """
        if self._loaded_on != device:
            self.features.load(device)
            self._loaded_on = device
        return _Encoder(self.features)


class _Encoder(FeatureNetwork):
    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def embed(self, patches: Tensor) -> Tensor:
        return self.features(patches)
