"""A diffusion transformer that runs in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


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
