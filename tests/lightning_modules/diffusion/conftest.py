"""A diffusion transformer that runs in milliseconds, and what surrounds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from datamodules.crops import CropDataset, whole_images
from datamodules.patch_store import Source, open_store
from lightning_modules.diffusion.codec import Codec, PixelSpace
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion
from lightning_modules.diffusion.process import NoiseProcess, scheduler_config


@pytest.fixture(scope="session")
def tiny_dit() -> Callable[..., Any]:
    """Makes DiTs of 2 blocks 16 wide, drawn from seed 0 (nothing is zero), in evaluation mode; options can change."""

    def make(**changes):
        from diffusers import DiTTransformer2DModel

        torch.manual_seed(0)
        options = {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "sample_size": 8,
            "num_embeds_ada_norm": 10,
            "norm_type": "ada_norm_zero",
            "norm_elementwise_affine": False,
            "activation_fn": "gelu-approximate",
            "attention_bias": True,
        }
        return DiTTransformer2DModel(**{**options, **changes}).eval()

    return make


@pytest.fixture(scope="session")
def tiny_diffusion(tiny_dit: Callable[..., Any]) -> Callable[..., LatentDiffusion]:
    """Makes diffusion models of 8 x 8 latents: pixels, or those of a codec; options of `tiny_dit` can change."""

    def make(codec: Codec | None = None, prediction: str = "epsilon", zero_snr: bool = False, **changes):
        codec = codec or PixelSpace()
        process = NoiseProcess(scheduler_config(prediction, "linear", zero_snr, clip=False))
        return LatentDiffusion(codec, tiny_dit(**{"in_channels": codec.channels, **changes}), process)

    return make


@pytest.fixture
def no_null() -> Callable[[LatentDiffusion], LatentDiffusion]:
    """Takes the null class from a model."""

    def drop(diffusion: LatentDiffusion) -> LatentDiffusion:
        for block in diffusion.denoiser.transformer_blocks:
            embedder = block.norm1.emb.class_embedder
            embedder.embedding_table = nn.Embedding.from_pretrained(embedder.embedding_table.weight[:-1].clone())
        return diffusion

    return drop


@pytest.fixture
def real_patches(tmp_path: Path) -> Callable[..., CropDataset]:
    """Makes a dataset of smooth 8 x 8 patches, one for each label, at scale 2."""

    def make(labels: list[int], features: np.ndarray | None = None) -> CropDataset:
        sources = []
        for number in range(len(labels)):
            coarse = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
            sources.append(Source(f"{number}.png", tmp_path / f"{number}.png"))
            Image.fromarray(coarse).resize((8, 8), Image.Resampling.BICUBIC).save(sources[-1].path)
        store = open_store(sources, 2, tmp_path / "cache")
        windows = whole_images(store, range(len(labels)))
        return CropDataset(store, windows, 8, 0, np.array(labels, dtype=np.int64), features)

    return make
