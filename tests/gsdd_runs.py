"""GSDD runs that take a second: tiny generators, and the shipped configurations with tiny options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lightning_modules.gan.generator import Generator
from lightning_modules.gan.style_file import save_style_generator
from lightning_modules.networks.style_generator import StyleGenerator, StyleSpec
from tests.diffusion_runs import MODEL, SIDE, run

SCALE, CLASSES = 4, 3
LATENT_SIDE = SIDE // SCALE
STYLE = StyleSpec(z_dim=4, w_dim=6, mapping_layers=2, channels=8)
CONVNET = "{class_path: RandomConvNet, init_args: {width: 8, depth: 2}}"
PROXY = "{network: {architecture: EDSR, options: {n_feats: 4, n_resblocks: 1}}, steps: 2, batch_size: 2}"


class Pixels(Generator):
    """Patches are their latents; some leave [0, 1]."""

    fingerprint = "pixels"

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.side = side
        self.latent_shape = self.noise_shape = (3, side, side)

    def sample(self, noise: Tensor) -> Tensor:
        return noise

    def approximate(self, hr: Tensor) -> Tensor:
        return hr

    def generate(self, latents: Tensor) -> Tensor:
        return latents


def write_sr(file: Path, scale: int = SCALE, seed: int = 0, brighter: float = 0) -> Path:
    """An SR network that nobody trained, as a file that spandrel recognises; it may brighten what it upscales."""
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(seed)
    network = Compact(num_feat=8, num_conv=1, upscale=scale)
    state = network.state_dict()
    state["body.4.bias"] += brighter
    save_file(state, file)
    return file


def write_style(folder: Path, seed: int = 0, side: int = SIDE) -> Path:
    """A style-based generator that nobody trained."""
    torch.manual_seed(seed)
    save_style_generator(StyleGenerator(STYLE, side), folder)
    return folder


def photographs(count: int, side: int = SIDE, seed: int = 0) -> Tensor:
    """Smooth pictures of several colours, float32 in [0, 1], (count, 3, side, side)."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)


def of_data() -> list[str]:
    """Three classes; no pictures."""
    quiet = ["--selection_sheet.patches", "0", "--sample_grid.per_class", "0", "--image_grid.images", "0"]
    return ["--data.init_args.pseudo_labels.classes", str(CLASSES), *quiet]


def inverting(source: Path, ipc: int = 3, steps: int = 1) -> list[str]:
    """Options of GANInversion in fit: a generator, patches of each class, and so many steps of inversion."""
    return [
        *of_data(),
        *(f"{MODEL}generator", f"{{source: {source}}}"),
        *(f"{MODEL}budget", f"{{ipc: {ipc}, patches: null, percent: null}}"),
        *(f"{MODEL}inversion_steps", str(steps), f"{MODEL}features", CONVNET),
        *(f"{MODEL}real_batch", "8", f"{MODEL}chunk", "2"),
    ]


def invert(*args: str) -> Any:
    """Finds latents."""
    return run("fit", "distill/gsdd/invert.yaml", *args)


def decode(*args: str) -> Any:
    """Writes a set."""
    return run("predict", "distill/gsdd/decode.yaml", "--sample_report.patches", "0", *args)
