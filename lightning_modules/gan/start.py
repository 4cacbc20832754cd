"""Where latents begin: at real patches, at random, or where an earlier run left them; and what does not go together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.augmentation.counter_rng import derive_seed
from datamodules.crops import CropDataset
from datamodules.randomness import noise
from datamodules.selection.interfaces import Indices
from lightning_modules.gan.generator import Generator
from lightning_modules.gan.latent_set import LatentSet
from lightning_modules.requests import Request


def real_patches(real: CropDataset, numbers: Sequence[int], device: torch.device) -> Tensor:
    """Patches by their numbers, whole, float32 in [0, 1], (B, 3, side, side)."""
    return real.whole(numbers).to(device).to_float().hr


@torch.no_grad()
def approximations(generator: Generator, real: CropDataset, numbers: Sequence[int], chunk: int) -> Tensor:
    """First guesses of the latents of real patches, on the CPU, `chunk` at a time."""
    parts = [numbers[at : at + chunk] for at in range(0, len(numbers), chunk)]
    return torch.cat([generator.approximate(real_patches(real, part, torch.device("cpu"))) for part in parts])


def random_latents(generator: Generator, asked: Sequence[Request], seed: int) -> Tensor:
    """Each by its class and its number in it, so that a larger budget contains the smaller one; on the CPU."""
    drawn = [
        noise(derive_seed(seed, request.label), "latents", torch.tensor([request.number]), generator.noise_shape)
        for request in asked
    ]
    return generator.sample(torch.cat(drawn))


def refuse_sides(real: CropDataset, side: int) -> None:
    """Makes sure that patches are as large as those of a generator.

    Raises:
        ValueError: when one is not.
    """
    for window in real.windows:
        if (window.height, window.width) != (side, side):
            raise ValueError(
                f"the generator makes patches of {side} pixels but the data's are of {window.width} x "
                f"{window.height}; use data SelectedPatches with patch_size and candidate_size {side}"
            )


def refuse_repetition(wanted: Indices, sizes: Indices) -> None:
    """Makes sure that there are as many real patches of each class, int64 (K,), as latents are to begin at them.

    Raises:
        ValueError: when a class has too few.
    """
    for label, (count, size) in enumerate(zip(wanted.tolist(), sizes.tolist(), strict=True)):
        if count > size:
            raise ValueError(
                f"model.budget asks for {count} latents of class {label}, which has {size} real patches to start "
                "at; lower the budget, set model.start random, or give more patches (data.candidate_stride)"
            )


def refuse_other_data(found: LatentSet, sizes: Indices, data: str, decodes: bool) -> None:
    """Makes sure that latents from disk go with the data.

    Args:
        found: what was read.
        sizes: real patches of each class, int64 (K,).
        data: fingerprint of the photographs.
        decodes: whether they are only decoded, so that the set is one of the photographs that they were found for.

    Raises:
        ValueError: when they do not.
    """
    unknown = sorted(set(found.labels) - set(np.flatnonzero(sizes).tolist()))
    if unknown:
        raise ValueError(
            f"model.init_from has latents of class {unknown[0]}, which no patch of the data has; set "
            "data.pseudo_labels and data.filters as when they were made"
        )
    if decodes and found.data not in (None, data):
        raise ValueError(
            "model.init_from has latents that were found for other photographs than data.root's; set data.root and "
            "data.scale as when they were made"
        )
