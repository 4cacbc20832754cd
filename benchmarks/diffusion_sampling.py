"""Images per second of sampling, ours against diffusers' own DiTPipeline, side by side.

    python benchmarks/diffusion_sampling.py
    python benchmarks/diffusion_sampling.py --batch 16 --guidance 1 --out benchmarks/results/diffusion_sampling.json

Run it from the root of the repository. Both have the same model of random weights, scheduler (DDIM), steps, guidance
and noise, and give decoded images in [0, 1] as tensors:

- ``DiTPipeline``: its call, without a progress bar;
- ``ours``: `lightning_modules.diffusion.sampling.sample` and the autoencoder's decoder;
- ``ours / DiTPipeline``: median of the ratios of the repeats, above 1 where ours makes more images per second. Repeats
  alternate in who goes first;
- ``difference``: the most by which a pixel differs, in grey levels of 255.

A transformer as large as DiT-XL/2 for 512 pixels:
--layers 28 --heads 16 --head_width 72 --autoencoder kl --channels 128 --stages 4 --latent_channels 4 --patch_size 512
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from reporting import Row, environment, save, show
from rich.progress import track
from torch import Tensor

from datamodules.randomness import generators
from lightning_modules.diffusion.codec import AutoencoderSpec
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion
from lightning_modules.diffusion.process import NoiseProcess, scheduler_config
from lightning_modules.diffusion.sampling import Sampler, sample
from lightning_modules.diffusion_prior import DenoiserSpec

CLASSES = 1000
"""DiTPipeline takes 1000 for the null class, whatever the model's number of classes is."""

THEIRS, OURS = "DiTPipeline", "ours"
Make = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """What both are asked for: so many images at once, of different classes."""

    sampler: Sampler
    batch: int
    device: torch.device

    @property
    def labels(self) -> list[int]:
        """A class for each image."""
        return [number % CLASSES for number in range(self.batch)]

    @property
    def noises(self) -> list[torch.Generator]:
        """Generators of the starting noise, at their beginning."""
        return generators(0, "benchmark", range(self.batch))


def build(options: argparse.Namespace) -> LatentDiffusion:
    """A model that nobody trained, of the sizes that were asked for."""
    torch.manual_seed(0)
    codec = AutoencoderSpec(options.autoencoder, options.channels, options.stages, options.latent_channels).build(
        options.patch_size
    )
    spec = DenoiserSpec(options.layers, options.heads, options.head_width, options.patch)
    denoiser = spec.build(codec.channels, options.patch_size // codec.factor, CLASSES)
    process = NoiseProcess(scheduler_config("v_prediction", "squaredcos_cap_v2", zero_snr=False, clip=False))
    return LatentDiffusion(codec, denoiser, process).eval().to(options.device)


def pipeline_of(diffusion: LatentDiffusion) -> Any:
    """The pipeline of diffusers of the same modules."""
    from diffusers import DDIMScheduler, DiTPipeline

    scheduler = DDIMScheduler.from_config(diffusion.process.config)
    pipeline = DiTPipeline(diffusion.denoiser, diffusion.codec.model, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample_ours(diffusion: LatentDiffusion, case: Case) -> Tensor:
    """Our way: images in [0, 1], (B, 3, side, side)."""
    with torch.inference_mode():
        condition = torch.tensor(case.labels, device=case.device)
        return diffusion.codec.decode(sample(diffusion, case.sampler, condition, case.noises)).clamp(0, 1)


def sample_theirs(pipeline: Any, case: Case) -> Tensor:
    """Their way, to the same."""
    images: Tensor = pipeline(
        case.labels,
        guidance_scale=case.sampler.guidance,
        generator=case.noises,
        num_inference_steps=case.sampler.steps,
        output_type="pt",
    ).images
    return images


def seconds(make: Make) -> float:
    """Wall time until images are there."""
    start = time.perf_counter()
    make()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(diffusion: LatentDiffusion, case: Case, repeats: int) -> Row:
    """One case: medians of both, their ratio and how far their images differ."""
    pipeline = pipeline_of(diffusion)
    ways: dict[str, Make] = {
        THEIRS: lambda: sample_theirs(pipeline, case),
        OURS: lambda: sample_ours(diffusion, case),
    }
    theirs, ours = (make() for make in ways.values())  # which warms up, too
    spent: dict[str, list[float]] = {who: [] for who in ways}
    for repeat in track(range(repeats), description=f"batch {case.batch}, guidance {case.sampler.guidance:g}"):
        for who in (*ways,)[:: -1 if repeat % 2 else 1]:
            spent[who].append(seconds(ways[who]))
    ratios = [other / own for other, own in zip(spent[THEIRS], spent[OURS], strict=True)]
    return {
        "batch": case.batch,
        "guidance": case.sampler.guidance,
        **{f"{who}, images/s": round(case.batch / statistics.median(spent[who]), 2) for who in ways},
        f"{OURS} / {THEIRS}": round(statistics.median(ratios), 3),
        "difference": round(255 * (ours - theirs).abs().max().item(), 3),
    }


def arguments() -> argparse.ArgumentParser:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Sampling: ours against DiTPipeline of diffusers.")
    parser.add_argument("--layers", type=int, default=6, help="of the transformer")
    parser.add_argument("--heads", type=int, default=6, help="of its attention")
    parser.add_argument("--head_width", type=int, default=32, help="numbers per head")
    parser.add_argument("--patch", type=int, default=2, help="positions of the latent along a side of a token")
    parser.add_argument("--autoencoder", choices=["tiny", "kl"], default="tiny", help="of diffusers")
    parser.add_argument("--channels", type=int, default=32, help="of the autoencoder")
    parser.add_argument("--stages", type=int, default=3, help="of the autoencoder; each but the last halves the sides")
    parser.add_argument("--latent_channels", type=int, default=12)
    parser.add_argument("--patch_size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--steps", type=int, default=20, help="of denoising")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="images at once")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 4.0], help="1 is without")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser


def main() -> None:
    """Measure, print a table and, with --out, write JSON."""
    options = arguments().parse_args()
    diffusion, device = build(options), torch.device(options.device)
    rows = [
        measure(diffusion, Case(Sampler("ddim", options.steps, guidance), batch, device), options.repeats)
        for batch, guidance in itertools.product(options.batch, options.guidance)
    ]
    show(f"Sampling with {options.steps} steps of DDIM", rows)
    if options.out:
        settings = {key: value for key, value in vars(options).items() if key not in ("batch", "guidance", "out")}
        save(options.out, rows, environment("diffusers"), **settings)


if __name__ == "__main__":
    main()
