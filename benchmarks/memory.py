"""Resident memory of a process that draws training batches, against the number of photographs it draws from.

    python benchmarks/memory.py
    python benchmarks/memory.py --root BSD400 --out benchmarks/results/memory.json

Run it from the root of the repository. For 40 and for 400 photographs (or as many as there are), a fresh process opens
the store, which has been built before, and draws batches. Its memory is read before the first batch and after each one:

- ``store``: decoded HR and LR pixels, which a loader that holds its images in memory would keep;
- ``before``: resident memory once everything is imported and the store is open;
- ``growth, resident``: the most by which it grew since, mapped pages of the store included, which the system takes back
  when it needs them;
- ``growth, own``: the same for anonymous memory, which belongs to the process alone (Linux; null elsewhere).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from reporting import Row, environment, in_fresh_process, save, show

from datamodules.crops import CropDataset, whole_images
from datamodules.image_files import find_images
from datamodules.loader import StreamLoader, StreamSampler
from datamodules.patch_store import PatchStore, Source, open_store
from datamodules.paths import cache_folder, resolve_folder

SCALE, PATCH, BATCH = 4, 64, 16


def synthetic(folder: Path, count: int, seed: int) -> None:
    """Writes pictures of the size of BSDS photographs: noise enlarged eight times."""
    random = np.random.default_rng(seed)
    for number in range(count):
        noise = Image.fromarray(random.integers(0, 256, (41, 61, 3), dtype=np.uint8))
        noise.resize((481, 321), Image.Resampling.BICUBIC).save(folder / f"{number:04}.jpg")


def resident() -> tuple[int, int | None]:
    """Bytes of this process in memory: all, and anonymous ones alone."""
    memory = psutil.Process().memory_info()
    shared = getattr(memory, "shared", None)
    return memory.rss, None if shared is None else memory.rss - shared


def draw(folder: Path, batches: int, seed: int) -> Row:
    """Draws from a built store and watches the memory of this process."""
    store = PatchStore(folder)
    patches = CropDataset(store, whole_images(store, range(len(store))), PATCH, seed)
    loader = StreamLoader(patches, StreamSampler(patches, BATCH))
    next(iter(loader))  # what the first batch imports and allocates is needed for any number of images
    store.release()
    before = resident()
    seen: list[tuple[int, int | None]] = []
    while len(seen) < batches:
        seen.extend(resident() for _ in loader)
    return {
        "photographs": len(store),
        "store, MB": megabytes(sum((folder / name).stat().st_size for name in ("hr.u8", "lr.u8"))),
        "batches": len(seen),
        "before, MB": megabytes(before[0]),
        "growth, resident, MB": megabytes(max(rss for rss, _ in seen) - before[0]),
        "growth, own, MB": None if before[1] is None else megabytes(max(own or 0 for _, own in seen) - before[1]),
    }


def megabytes(count: int) -> float:
    """Bytes as MB, to a tenth."""
    return round(count / 1e6, 1)


def measure(sources: list[Source], options: argparse.Namespace, cache: Path) -> Row:
    """Builds the store here and draws from it in a fresh process."""
    folder = open_store(sources, SCALE, cache).folder
    numbers = ["--batches", str(options.batches), "--seed", str(options.seed)]
    return in_fresh_process(["--store", str(folder), *numbers])


def all_rows(options: argparse.Namespace) -> list[Row]:
    """One row for each number of photographs."""
    with tempfile.TemporaryDirectory() as temporary:
        if options.root is None:
            root, cache = Path(temporary, "photographs"), Path(temporary, "cache")
            root.mkdir()
            synthetic(root, max(options.photographs), options.seed)
        else:
            root, cache = resolve_folder(options.root, "--root"), cache_folder(None)
        sources = [Source(path.relative_to(root).as_posix(), path) for path in find_images(root).images]
        return [measure(sources[:count], options, cache) for count in options.photographs]


def main() -> None:
    """Measure, print a table and, with --out, write JSON."""
    parser = argparse.ArgumentParser(description="Resident memory against the number of photographs.")
    parser.add_argument("--root", help="folder of photographs; without it, synthetic ones")
    parser.add_argument("--photographs", type=int, nargs="+", default=[40, 400], help="how many of them to draw from")
    parser.add_argument("--batches", type=int, default=3000, help="to draw, at least")
    parser.add_argument("--seed", type=int, default=0, help="of synthetic photographs and of crops")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)  # the fresh process is given this
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.store:
        print(json.dumps(draw(options.store, options.batches, options.seed)))
        return
    rows = all_rows(options)
    show(f"Memory of a process that draws batches of {BATCH} {PATCH}-px patches", rows)
    if options.out:
        save(options.out, rows, environment("numpy"), seed=options.seed)


if __name__ == "__main__":
    main()
