"""A cheap proxy of what a set is worth: a small SR network, trained on the patches as they are now for a short while.

Its PSNR on validation photographs shows, while a set is still being distilled, whether it teaches anything that bicubic
upscaling does not know. It is no ranking of good sets: so few updates learn nearly the same from four patches as from a
hundred.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.augmentation import Compose, resolve
from datamodules.augmentation.counter_rng import derive_seed, uniform
from datamodules.bicubic import downscale
from datamodules.evaluation import EvaluationSet
from datamodules.pair import PairBatch, to_uint8
from lightning_modules.metrics import SRMetrics
from lightning_modules.networks import NetworkSpec, build_network, check_spec
from lightning_modules.upscaling import upscale

EDSR_TINY = NetworkSpec("EDSR", {"n_feats": 32, "n_resblocks": 4, "direct_shuffle": True, "bicubic_skip": True})
"""The network of configs/sr/network/edsr_tiny.yaml."""

AUGMENTATION = "strong"
"""Recipe of configs/sr/distilled.yaml: few patches are learnt by heart without it."""


@dataclass(frozen=True)
class Proxy:
    """How the small network is trained: Adam with a one-cycle schedule on the L1 loss.

    Attributes:
        network: architecture and options; the scale is filled in.
        steps: updates.
        batch_size: crops per update.
        learning_rate: highest of the cycle.

    Raises:
        ValueError: for a value that makes no sense; the message names its key.
    """

    network: NetworkSpec = EDSR_TINY
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size"):
            if getattr(self, key) < 1:
                raise ValueError(f"model.proxy.{key} is {getattr(self, key)}; expected at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"model.proxy.learning_rate is {self.learning_rate}; expected a number above 0")
        try:
            check_spec(self.network)
        except ValueError as error:
            raise ValueError(f"model.proxy.network: {error}") from error

    def train(self, patches: Tensor, scale: int, crop: int, seed: int, device: torch.device) -> nn.Module:
        """A network trained on a set of patches, as it would be on the distilled set that they make.

        Pixels are rounded to 8 bits, as the files of a set are, and LR is their exact bicubic reduction. Everything
        random follows from the seed and the number of the update, and the global generators are left as they are: the
        same arguments give the same weights (on a GPU, as exactly as its convolutions repeat). It may be called inside
        `torch.no_grad` and `torch.inference_mode`, such as in the hooks of a validation.

        Args:
            patches: HR, RGB, (N, 3, side, side), uint8 or floating point in [0, 1]; no gradient reaches them.
            scale: of the network.
            crop: HR side of the random crops in pixels; patches that are not larger are taken whole.
            seed: of initial weights, order, crops and augmentation.
            device: to train on.

        Returns:
            The network on that device, in evaluation mode, without gradients; it maps float RGB in [0, 1], (B, 3, H, W)
            to (B, 3, scale * H, scale * W), not clipped.

        Raises:
            ValueError: when the patches are no squares of RGB, a side is no multiple of the scale, or the network
                cannot be built for the scale.
        """
        _check(patches, scale, crop)
        # Not enable_grad alone: weights made in inference mode could never be trained.
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            network = _untrained(self.network, scale, seed).to(device)
            self._fit(network, _pairs(patches.to(device), scale), crop, seed)
        return network.eval().requires_grad_(False)

    def _fit(self, network: nn.Module, pairs: PairBatch, crop: int, seed: int) -> None:
        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=self.steps)
        for batch in _batches(pairs, crop, self.steps, self.batch_size, seed):
            optimizer.zero_grad()
            F.l1_loss(network(batch.lr), batch.hr).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def measure(network: nn.Module, batch: PairBatch, images: EvaluationSet, metrics: SRMetrics) -> None:
    """Adds whole images, as the network upscales them, to what is measured; in full precision.

    Args:
        network: of `Proxy.train`.
        batch: of validation images.
        images: the set that they come from, which names them.
        metrics: the rows; its `compute` gives means that are right with several processes too.
    """
    with torch.autocast(batch.lr.device.type, enabled=False):
        sr = upscale(network, batch.lr, batch.scale).clamp(0, 1)
    names = [images.names[index] for index in batch.index.tolist()]
    metrics.update(images.name, names, batch.index, {"": sr}, hr=batch.hr, scale=batch.scale)


def _check(patches: Tensor, scale: int, crop: int) -> None:
    if patches.dim() != 4 or patches.shape[1] != 3 or patches.shape[2] != patches.shape[3] or not patches.numel():
        raise ValueError(f"the proxy trains on patches (N, 3, side, side), not {tuple(patches.shape)}")
    for name, side in (("patches", patches.shape[-1]), ("crops", crop)):
        if side < scale or side % scale:
            raise ValueError(f"the proxy's {name} have a side of {side} pixels; expected a multiple of scale {scale}")


def _untrained(spec: NetworkSpec, scale: int, seed: int) -> nn.Module:
    # torch.manual_seed would seed the generators of all GPUs as well, and so the run that this is a part of.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "proxy weights"))
        return build_network(spec, scale)


def _pairs(patches: Tensor, scale: int) -> PairBatch:
    """The whole set as its files hold it, uint8."""
    hr = to_uint8(patches) if patches.is_floating_point() else patches
    return PairBatch(downscale(hr, scale), hr, torch.arange(len(hr), device=hr.device))


def _batches(pairs: PairBatch, crop: int, steps: int, batch_size: int, seed: int) -> Iterator[PairBatch]:
    """What the updates are made with: each patch once before any comes again, cropped and augmented."""
    numbers = torch.arange(steps * batch_size)
    rounds = torch.arange(math.ceil(len(numbers) / len(pairs)) * len(pairs)).view(-1, len(pairs))
    order = uniform(seed, "proxy order", rounds)[..., 0].argsort(dim=1, stable=True).flatten()
    augment = Compose(resolve(AUGMENTATION), derive_seed(seed, "proxy augmentation"))
    for batch in numbers.split(batch_size):
        yield augment(_cropped(pairs, order[batch], batch, crop, seed).to_float())


def _cropped(pairs: PairBatch, rows: Tensor, numbers: Tensor, crop: int, seed: int) -> PairBatch:
    """Crops of some patches, LR and HR in register; `numbers` are the samples' and become their `index`."""
    scale, side = pairs.scale, pairs.lr.shape[-1]
    small = min(crop // scale, side)
    places = (uniform(seed, "proxy crop", numbers, 2) * (side - small + 1)).long()

    def cut(images: Tensor, factor: int) -> Tensor:
        windows = zip(rows.tolist(), (places * factor).tolist(), strict=True)
        size = small * factor
        return torch.stack([images[row, :, top : top + size, left : left + size] for row, (top, left) in windows])

    return PairBatch(cut(pairs.lr, 1), cut(pairs.hr, scale), numbers.to(pairs.hr.device))
