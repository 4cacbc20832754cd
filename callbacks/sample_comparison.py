"""Samples beside the real patches that their model learned from: pixels, features, nearest neighbours, spectra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from callbacks.sheets import spread
from datamodules.augmentation.counter_rng import uniform
from datamodules.base import SRDataModule
from datamodules.bicubic import downscale, upscale
from datamodules.crops import CropDataset
from datamodules.distilled import DistilledSet
from datamodules.distilled.decoding import images_of
from datamodules.image_files import read_rgb
from datamodules.pair import PairBatch
from datamodules.paths import cache_folder
from datamodules.selection.computed import exact_inference
from datamodules.selection.criteria import PSNRBicubic
from datamodules.selection.distances import Nearest, nearest, standardiser
from datamodules.selection.features import Descriptor
from datamodules.selection.interfaces import Features
from datamodules.spectra import Spectrum, radial_spectrum

MOST = 2048
"""Samples, and real patches, that are looked at."""

MOST_BYTES = 1 << 28
"""Of pixels of either: 341 patches of 512 x 512."""

CHUNK = 256
"""Patches that are embedded at a time."""


@dataclass(frozen=True)
class Samples:
    """Images of a distilled set.

    Attributes:
        pixels: HR, uint8 (N, 3, side, side).
        classes: pseudo-label of each; None where it has none.
    """

    pixels: Tensor
    classes: list[int | None]


@dataclass(frozen=True)
class RealPatches:
    """Training patches: some to look at, and those among which neighbours are searched, of which they are a part.

    Attributes:
        pixels: of those to look at, HR, uint8 (M, 3, side, side).
        drawn: their positions among the searched ones, int64 (M,).
        vectors: features of the searched, float32 (P, D), on the CPU.
        groups: a number for the photograph that each of the searched comes from, int64 (P,).
        read: pixels and pseudo-labels of the searched at some positions.
    """

    pixels: Tensor
    drawn: Tensor
    vectors: Tensor
    groups: Tensor
    read: Callable[[Sequence[int]], PairBatch]


@dataclass(frozen=True)
class Comparison:
    """Everything that pictures and figures are made of.

    Attributes:
        samples: N of them.
        real: M of them, P to search among.
        scale: factor between HR and LR.
        vectors: standardised features of samples and of real patches, (N, D) and (M, D).
        neighbours: the searched patch nearest to each sample.
        nearest_real: for each real patch the nearest one of another photograph.
        neighbour_pairs: pixels and pseudo-labels of `neighbours`.
        psnr: PSNR of bicubic of samples and of real patches in dB, float64 (N,) and (M,).
        spectra: radial power spectra of `real` patches, of the `sampled`, and of what bicubic makes of real patches'
            LR (`bicubic`).
    """

    samples: Samples
    real: RealPatches
    scale: int
    vectors: tuple[Tensor, Tensor]
    neighbours: Nearest
    nearest_real: Nearest
    neighbour_pairs: PairBatch
    psnr: tuple[Tensor, Tensor]
    spectra: dict[str, Spectrum]


def compare(written: DistilledSet, data: SRDataModule, device: torch.device) -> Comparison:
    """Compares a set with the training patches of the datamodule.

    Args:
        written: by this run.
        data: after `setup("fit")`. Features are those of its rule, or the descriptor without weights; the images of
            latents are kept in its cache, or in the user's where it has none.
        device: to compute features on.

    Raises:
        ValueError: when samples are no squares of the side of training patches, or features do not go with them.
        OSError: when a file of the set, or of the features' weights, cannot be read.
    """
    features = feature_extractor(data)
    features.load(device)
    cache = getattr(data, "cache", None) or cache_folder(None)
    samples = _read_samples(images_of(written, cache, device))
    real = _draw_real(data, samples.pixels.shape[-1], features, device)
    return compare_patches(samples, _embed(samples.pixels, features, device), real, data.scale)


def compare_patches(samples: Samples, vectors: Tensor, real: RealPatches, scale: int) -> Comparison:
    """The same for patches in memory.

    Args:
        samples: at least one.
        vectors: their features, (N, D).
        real: at least one.
        scale: factor between HR and LR.
    """
    standardise = standardiser(real.vectors)
    sampled, searched = standardise(vectors), standardise(real.vectors)
    drawn = searched[real.drawn]
    neighbours = nearest(sampled, searched)
    bicubic = upscale(downscale(real.pixels, scale), scale)
    return Comparison(
        samples,
        real,
        scale,
        (sampled, drawn),
        neighbours,
        nearest(drawn, searched, (real.groups[real.drawn], real.groups)),
        real.read(neighbours.position.tolist()),
        (_psnr_bicubic(samples.pixels, scale), _psnr_bicubic(real.pixels, scale)),
        {
            "real": radial_spectrum(real.pixels),
            "sampled": radial_spectrum(samples.pixels),
            "bicubic": radial_spectrum(bicubic),
        },
    )


def feature_extractor(data: SRDataModule) -> Features:
    """That of the datamodule's rule; the descriptor without weights where it has no rule."""
    features: Features | None = getattr(data, "feature_extractor", None)
    return features or Descriptor()


def _read_samples(images: DistilledSet) -> Samples:
    """Evenly from the first to the last."""
    if len(images.sizes) > 1 or images.sizes[0][0] != images.sizes[0][1]:
        raise ValueError(f"samples of {len(images.sizes)} sizes, such as {images.sizes[0]}, are no squares of one")
    lines = [images.metadata[number] for number in spread(len(images.metadata), _most(images.sizes[0][0]))]
    pixels = torch.stack([torch.from_numpy(read_rgb(images.folder / line["file_name"])) for line in lines])
    return Samples(pixels.permute(0, 3, 1, 2).contiguous(), [line.get("pseudo_label") for line in lines])


def _draw_real(data: Any, side: int, features: Features, device: torch.device) -> RealPatches:
    """Windows of that side whole, or else crops of the photographs; at random, the same ones in every run."""
    data.with_features = True  # mostly in the cache already, where the rule has classes
    patches: CropDataset = data.training_patches()
    if {(window.height, window.width) for window in patches.windows} == {(side, side)}:
        images = torch.tensor([window.image for window in patches.windows])
        return _draw_windows(patches, images, _most(side), features, device)
    if patches.patch_size != side:
        raise ValueError(f"samples have a side of {side} but training patches of {patches.patch_size}")
    numbers = list(range(min(len(patches), _most(side))))
    pixels, positions = patches.__getitems__(numbers).hr, torch.tensor(numbers)
    return RealPatches(pixels, positions, _embed(pixels, features, device), positions, patches.__getitems__)


def _draw_windows(
    patches: CropDataset, images: Tensor, most: int, features: Features, device: torch.device
) -> RealPatches:
    luck = uniform(0, "real patches", torch.arange(len(images)))[:, 0]
    drawn = luck.argsort(stable=True)[:most].sort().values
    pixels = patches.whole(drawn.tolist()).hr
    if patches.features is not None:
        return RealPatches(pixels, drawn, torch.from_numpy(patches.features), images, patches.whole)
    return RealPatches(
        pixels,
        torch.arange(len(drawn)),
        _embed(pixels, features, device),
        images[drawn],
        lambda positions: patches.whole(drawn[list(positions)].tolist()),
    )


def _embed(pixels: Tensor, features: Features, device: torch.device) -> Tensor:
    """Float32 (B, D), on the CPU; computed as the cached vectors of real patches are."""
    with exact_inference():
        vectors = [features(part.to(device).float() / 255).float().cpu() for part in pixels.split(CHUNK)]
    return torch.cat(vectors)


def _psnr_bicubic(pixels: Tensor, scale: int) -> Tensor:
    """With the patch's own LR, which is all that samples have."""
    return PSNRBicubic()(PairBatch(downscale(pixels, scale), pixels, torch.arange(len(pixels))))


def _most(side: int) -> int:
    return max(1, min(MOST, MOST_BYTES // (3 * side**2)))
