"""Peak memory and time of one matching step of GSDD, with the latents of a class in chunks and all at once.

    python benchmarks/inversion_memory.py
    python benchmarks/inversion_memory.py --ipc 10 100 500 --out benchmarks/results/inversion_memory.json

Run it from the root of the repository. Each row is a process of its own: an untrained EDSR-tiny or compact GAN decodes
latents of 64-pixel patches, RandomConvNet (width 64) gives features, and the gradient of the distance of means reaches
the latents. ``step, MB`` is by how much that raised the largest resident memory of the process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from reporting import Row, environment, in_fresh_process, save, show
from torch import Tensor

from lightning_modules.feature_networks import RandomConvNet
from lightning_modules.gan.chunks import chunked_gradient
from lightning_modules.losses.distribution_matching import mean_distance
from lightning_modules.networks.edsr import EDSR
from lightning_modules.networks.style_generator import StyleGenerator, StyleSpec

SIDE, WIDTH = 64, 64
CPU = torch.device("cpu")


def decoder(name: str, count: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A frozen generator, and latents for it."""
    torch.manual_seed(0)
    if name == "sr":
        network = EDSR(scale=4, n_feats=32, n_resblocks=4, direct_shuffle=True, bicubic_skip=True)
        return network.requires_grad_(False), torch.rand(count, 3, SIDE // 4, SIDE // 4)
    style = StyleGenerator(StyleSpec(), SIDE).requires_grad_(False)
    return style.synthesis, torch.randn(count, style.layers, style.w_dim)


def largest() -> float:
    """Largest resident memory of this process so far, MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def step(name: str, ipc: int, chunk: int) -> Row:
    """One matching step in this process."""
    decode, latents = decoder(name, ipc)
    network = RandomConvNet(width=WIDTH).network(0, 0, CPU)
    real = network(torch.rand(32, 3, SIDE, SIDE))

    def embed(some: Tensor) -> Tensor:
        """Features of what latents decode to."""
        return network(decode(some))

    measured = partial(mean_distance, real)
    chunked_gradient(latents[:1], chunk, embed, measured)  # what the first one allocates is needed for any number
    before, start = largest(), time.perf_counter()
    chunked_gradient(latents, chunk, embed, measured)
    seconds = time.perf_counter() - start
    return {
        "generator": name,
        "ipc": ipc,
        "chunk": chunk,
        "step, MB": round(largest() - before),
        "s": round(seconds, 2),
    }


def main() -> None:
    """Measure, print a table and, with --out, write JSON."""
    parser = argparse.ArgumentParser(description="Peak memory of GSDD's matching, in chunks and all at once.")
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 100, 500], help="latents of a class")
    parser.add_argument("--chunk", type=int, default=16, help="latents that a graph is built for")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # the fresh process is given this
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        print(json.dumps(step(options.one[0], int(options.one[1]), int(options.one[2]))))
        return
    pairs = [(ipc, chunk) for ipc in options.ipc for chunk in dict.fromkeys((options.chunk, ipc))]
    cases = itertools.product(("sr", "style"), pairs)
    rows = [in_fresh_process(["--one", name, *map(str, numbers)]) for name, numbers in cases]
    show(f"One matching step, {SIDE}-px patches", rows)
    if options.out:
        save(options.out, rows, environment())


if __name__ == "__main__":
    main()
