"""Diffusion runs that take a second: a tiny model, and the shipped configurations with tiny options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lightning_modules.diffusion.codec import PixelSpace
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion
from lightning_modules.diffusion.pretrained import save_pretrained
from lightning_modules.diffusion.process import NoiseProcess, scheduler_config
from lightning_modules.diffusion_prior import DenoiserSpec
from main import main

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SIDE, CLASSES = 16, 3
MODEL = "--model.init_args."
LORA = "{class_path: LoRA, init_args: {rank: 2}}"
SAMPLER = "{method: ddim, steps: 3, guidance: 1.0, strength: 1.0}"


def write_model(folder: Path, seed: int = 0) -> Path:
    """A pipeline for pixels that nobody trained, one block 16 wide; no output of it is zero."""
    torch.manual_seed(seed)
    codec = PixelSpace()
    denoiser = DenoiserSpec(layers=1, heads=2, head_width=8, patch=4).build(codec.channels, SIDE, 1)
    process = NoiseProcess(scheduler_config("v_prediction", "squaredcos_cap_v2", zero_snr=False, clip=True))
    save_pretrained(LatentDiffusion(codec, denoiser, process), folder)
    return folder


def small(tiny: Sequence[str]) -> list[str]:
    """The tiny command line of conftest.py for patches of 16 pixels, whatever the model is."""
    network = tiny.index("--model.init_args.network")
    patches = ["--data.init_args.patch_size", str(SIDE), "--data.init_args.batch_size", "4"]
    return [*tiny[:network], *tiny[network + 2 :], *patches]


def adapting(model: Path) -> list[str]:
    """Options of LoRADiffusion, in fit and predict alike: the pretrained model, rank 2, three classes; no pictures."""
    return [
        *(f"{MODEL}pretrained", str(model), f"{MODEL}adaptation", LORA),
        *("--data.init_args.pseudo_labels.classes", str(CLASSES)),
        *("--selection_sheet.patches", "0", "--sample_grid.per_class", "0", "--image_grid.images", "0"),
    ]


def run(command: str, config: str, *args: str) -> Any:
    """One command with a shipped configuration, by its place in configs/; gives the CLI."""
    return main([command, "--config", str(CONFIGS / config), *args])


def fit_lora(*args: str) -> Any:
    """Fine-tunes."""
    return run("fit", "distill/diffusion/lora.yaml", *args)


def sample(*args: str) -> Any:
    """Samples, in three steps without guidance."""
    quick = [f"{MODEL}sampler", SAMPLER, "--sample_report.patches", "0"]
    return run("predict", "distill/diffusion/sample.yaml", *quick, *args)


def budget(**wanted: float) -> list[str]:
    """Options for a budget, whatever it was, of samples of which none is left out."""
    values = {"ipc": "null", "patches": "null", "percent": "null", **wanted}
    flow = ", ".join(f"{key}: {value}" for key, value in values.items())
    return [f"{MODEL}budget", f"{{{flow}}}", f"{MODEL}oversample", "1", f"{MODEL}keep", "null"]


def images(folder: Path) -> list[np.ndarray]:
    """Pictures of a distilled set in its order, uint8 (H, W, 3)."""
    return [np.asarray(Image.open(folder / line["file_name"])) for line in lines(folder)]


def lines(folder: Path) -> list[dict[str, Any]]:
    """Its metadata."""
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def provenance(folder: Path) -> dict[str, Any]:
    """Its record."""
    record: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return record


def furthest(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> int:
    """Grey levels by which two series of pictures differ at most."""
    return max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(first, second, strict=True))
