"""The networks of LPIPS and DISTS, whose weights torchvision fetches."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import torch
from torch import nn

_BACKBONES = {"lpips": "AlexNet_Weights.IMAGENET1K_V1", "dists": "VGG16_Weights.IMAGENET1K_V1"}


def perceptual_network(name: str) -> nn.Module:
    """The network of `lpips` or `dists`, float32 and frozen; it compares images (B, 3, H, W).

    Raises:
        FileNotFoundError: when its weights are neither there nor to be fetched.
    """
    from torchvision.models import get_weight  # type: ignore[import-untyped]

    _require_weights(name, get_weight(_BACKBONES[name]).url)
    # Layers are drawn at random before the weights are read: a metric must not move the run's random numbers.
    with torch.random.fork_rng(devices=[]):
        return _build_perceptual(name).float().eval().requires_grad_(False)


def _build_perceptual(name: str) -> nn.Module:
    if name == "dists":
        from torchmetrics.functional.image.dists import DISTSNetwork

        return DISTSNetwork()
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex").net


def _require_weights(name: str, url: str) -> None:
    """Ask for the file before torchvision does: its own download has no time limit and leaves a folder behind."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if path.is_file():
        return
    try:
        urlopen(url, timeout=10).close()  # noqa: S310 - the address is torchvision's
    except OSError as error:
        raise FileNotFoundError(
            f"{name} needs the weights {path.name}, which could not be fetched from {url} ({error}): "
            f"put the file at {path}, or leave {name} off"
        ) from error
