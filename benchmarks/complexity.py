"""Patches per second of exact entropy and of Vision Transformers that estimate it, side by side on the same patches.

    python benchmarks/complexity.py
    python benchmarks/complexity.py --sides 64 512 --patches 32 --out benchmarks/results/complexity.json

Run it from the root of the repository. First a tiny ViT is trained as configs/distill/tripled/complexity.yaml says, for
its rank correlation with exact entropy on held-out photographs. Of the embedded ones that is a single photograph, on
which the configuration's augmentation was chosen (0.71 with `strong`, 0.48 with `plain`): read the figure as a
validation's, not a test's. Then all score the same uint8 patches on one thread:

- ``exact``: the criterion `Entropy`, grey-level and gradient entropy;
- ``tiny ViT``: the one that was trained, on copies of 64 x 64 pixels;
- ``ViT-B/16``: the published one, on copies of 128 x 128 pixels, with random weights, which take as long.

They are measured in turn, and again; speeds are of the median round, from pixels in memory to scores. The cost of exact
entropy grows with the pixels of a patch, that of a ViT beyond its resizing does not. Of the ViTs only the tiny one's
rank correlation is measured here; exact entropy's is 1 by definition.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from reporting import ROOT, Row, environment, save, show
from torch import Tensor

from datamodules import RealImages
from datamodules.pair import PairBatch
from datamodules.selection.candidates import Candidates
from datamodules.selection.criteria import Entropy
from lightning_modules.complexity_file import load_complexity
from lightning_modules.networks.complexity_vit import ComplexityViT, ViTSpec
from main import main as srdistill

SCALE = 4
CONFIG = ROOT / "configs" / "distill" / "tripled" / "complexity.yaml"
MEASURED = ("val/spearman", "val/rmse")


def train(root: str, steps: int) -> tuple[ComplexityViT, Row]:
    """The tiny ViT, and how well it agrees with exact entropy on held-out photographs."""
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    length = ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(steps)]
    with tempfile.TemporaryDirectory() as runs:
        where = ["--run.root", runs, "--data.init_args.root", root, "--trainer.accelerator", "cpu"]
        cli = srdistill(["fit", "--config", str(CONFIG), *where, *quiet, *length])
        assert cli is not None
        network, _ = load_complexity(cli.run_dir)
    figures = {name: cli.trainer.callback_metrics[name].item() for name in MEASURED}
    return network, {
        "photographs": Path(root).name,
        "optimizer_steps": steps,
        "Spearman": round(figures["val/spearman"], 4),
        "RMSE, bits": round(figures["val/rmse"], 3),
    }


def patches(root: str, side: int, count: int) -> PairBatch:
    """Patches spread evenly over all photographs of a folder that are large enough."""
    data = RealImages(root, validation=1, scale=SCALE, patch_size=side, batch_size=1, seed=0)
    data.prepare_data()
    data.setup("fit")
    candidates = Candidates(data.store, [*range(len(data.store))], side, side // 2)
    return candidates.pairs(np.linspace(0, len(candidates) - 1, count).round().astype(np.int64))


def estimate(network: ComplexityViT, pairs: PairBatch) -> Tensor:
    """What `LearnedComplexity` computes."""
    with torch.no_grad():
        scores: Tensor = network(pairs.hr.float() / 255)
    return scores


def seconds(function: Callable[[], Tensor]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(pairs: PairBatch, networks: dict[str, ComplexityViT], rounds: int) -> Row:
    """One size of patches: median speeds in patches per second, and how many times faster exact entropy is."""
    exact = Entropy()
    named: dict[str, Callable[[], Tensor]] = {"exact": lambda: exact(pairs)}
    for who, network in networks.items():
        named[who] = lambda network=network: estimate(network, pairs)  # type: ignore[misc]
    spent: dict[str, list[float]] = {who: [] for who in named}
    for _ in range(rounds + 1):
        for who, function in named.items():
            spent[who].append(seconds(function))
    median = {who: statistics.median(values[1:]) for who, values in spent.items()}  # the first round warms up
    return {
        "side": pairs.hr.shape[-1],
        "patches": len(pairs),
        **{f"{who}, patches/s": round(len(pairs) / time_, 1) for who, time_ in median.items()},
        **{f"exact / {who}": round(median[who] / median["exact"], 2) for who in networks},
    }


def main() -> None:
    """Train, measure, print tables and, with --out, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="embedded", help="folder of photographs")
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 512], help="of the patches, in pixels")
    parser.add_argument("--patches", type=int, default=32)
    parser.add_argument("--steps", type=int, default=600, help="of training the tiny ViT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tiny, agreement = train(options.root, options.steps)
    networks = {"tiny ViT": tiny, "ViT-B/16": ComplexityViT(ViTSpec()).eval()}
    rows = [measure(patches(options.root, side, options.patches), networks, options.rounds) for side in options.sides]
    show("patches per second, one thread", rows)
    show("the tiny ViT against exact entropy", [agreement])
    if options.out:
        save(options.out, rows, environment("timm"), rounds=options.rounds, agreement=agreement)


if __name__ == "__main__":
    main()
