"""Time and memory of every selector against the number of candidates; extrapolated to a million.

    python benchmarks/selector_scaling.py
    python benchmarks/selector_scaling.py --out benchmarks/results/selector_scaling.json
    python benchmarks/selector_scaling.py --dimensions 512 --selectors KCentre Herding --candidates 10000

Run it from the root of the repository. Candidates are synthetic: scores, features in a mapped file as `SelectedPatches`
keeps them, and seven pseudo-classes. Each selector runs in a fresh process on one thread:

- ``seconds``: of processor time, for the choice alone; scores, features and labels are there already;
- ``memory``: the most by which the process's own memory grew (Linux; null elsewhere), seen every 2 ms. Mapped pages of
  the features do not count, as the system takes them back when it needs them;
- ``cost``: how time grows with N candidates, n chosen, D dimensions and K classes; R are the references of
  `DistributionMatching`, the smaller of N and max(16384, 4 n);
- ``at 1 M``: seconds at a million candidates and the same percentage: those at the most candidates measured, times the
  ratio of the costs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import psutil
import torch
from reporting import Row, environment, in_fresh_process, save, show

from datamodules.selection import selectors
from datamodules.selection.interfaces import Pool, Selector

CLASSES = 7


class Size(NamedTuple):
    """What the cost of a choice depends on."""

    candidates: float
    chosen: float
    dimensions: int


Cost = Callable[[Size], float]
SORTING: tuple[str, Cost] = ("N log N", lambda size: size.candidates * math.log(size.candidates))
PASSES: tuple[str, Cost] = ("N n D", lambda size: size.candidates * size.chosen * size.dimensions)
COSTS: dict[str, tuple[str, Cost]] = {
    "Random": SORTING,
    "Lowest": SORTING,
    "Highest": SORTING,
    "Stratified": SORTING,
    "ClusterBalanced": SORTING,
    "KCentre": PASSES,
    "Herding": PASSES,
    "Deduplicated": (
        "N D + n^2 D / K",
        lambda size: size.dimensions * (size.candidates + size.chosen**2 / CLASSES),
    ),
    # A distance to the references comes out of a matrix product, six times as fast as one to the latest of the chosen.
    "DistributionMatching": (
        "N (R + 18 n)",
        lambda size: size.candidates * (min(size.candidates, max(16384, 4 * size.chosen)) + 18 * size.chosen),
    ),
}


class OwnMemory:
    """Watches the anonymous memory of this process from a thread; `growth` is in bytes, None where it is unknown."""

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self._known = sys.platform == "linux"
        if self._known and hasattr(ctypes.CDLL(None), "malloc_trim"):
            ctypes.CDLL(None).malloc_trim(0)  # what earlier cases freed would hide what this one takes
        self._before = self._peak = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self.growth = self._peak - self._before if self._known else None

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self._peak = max(self._peak, self._now())

    def _now(self) -> int:
        memory = self._process.memory_info()
        return memory.rss - getattr(memory, "shared", 0)


def make_pool(count: int, dimensions: int, seed: int, folder: Path) -> Pool:
    """Synthetic candidates: classes with centres of their own, scores that depend on the features."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    centres = random.standard_normal((CLASSES, dimensions)).astype(np.float32)
    path = folder / f"{count}.npy"
    features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, dimensions))
    for start in range(0, count, 10_000):
        rows = slice(start, start + 10_000)
        own = centres[labels[rows]]
        features[rows] = own + random.standard_normal(own.shape, dtype=np.float32)
    scores = (25 + 3 * features[:, 0].astype(np.float64)).round(6)
    features.flush()
    return Pool(scores, np.load(path, mmap_mode="r", allow_pickle=False), labels)


def measure(selector: Selector, pool: Pool, percent: float) -> Row:
    """One choice."""
    count = max(1, round(len(pool) * percent / 100))
    with OwnMemory() as memory:
        start = time.thread_time()
        chosen = selector.select(pool, count, 0)
        seconds = time.thread_time() - start
    assert len(np.unique(chosen)) == count
    return {
        "selector": type(selector).__name__,
        "candidates": len(pool),
        "percent": percent,
        "chosen": count,
        "seconds": round(seconds, 3),
        "memory, MB": None if memory.growth is None else round(memory.growth / 1e6, 1),
    }


def measure_all(name: str, options: argparse.Namespace) -> list[Row]:
    """All cases of one selector, in this process; small ones first, so that none hides behind a larger one's memory."""
    selector = getattr(selectors, name)()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        warm = make_pool(1000, options.dimensions, options.seed, Path(folder))
        selector.select(warm, 10, 0)  # first use of a library loads it
        for count in sorted(options.candidates):
            pool = make_pool(count, options.dimensions, options.seed, Path(folder))
            rows += [measure(selector, pool, percent) for percent in sorted(options.percent)]
    return rows


def measure_apart(name: str, options: argparse.Namespace) -> list[Row]:
    """The same, from another process."""
    numbers = {"--candidates": options.candidates, "--percent": options.percent}
    lists = [part for key, values in numbers.items() for part in (key, *map(str, values))]
    single = ["--dimensions", str(options.dimensions), "--seed", str(options.seed)]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return in_fresh_process(["--only", name, *single, *lists], **one_thread)


def extrapolated(row: Row, options: argparse.Namespace) -> Row:
    """The row with its cost and, at the most candidates, the seconds that a million would take."""
    text, cost = COSTS[str(row["selector"])]
    candidates, chosen, seconds = (float(row[key] or 0) for key in ("candidates", "chosen", "seconds"))
    million = Size(1e6, 1e6 / candidates * chosen, options.dimensions)
    growth = cost(million) / cost(Size(candidates, chosen, options.dimensions))
    largest = candidates == max(options.candidates)
    return {**row, "cost": text, "at 1 M, s": round(seconds * growth, 1) if largest else None}


def main() -> None:
    """Measure, print a table and, with --out, write JSON."""
    parser = argparse.ArgumentParser(description="Time and memory of selectors against the number of candidates.")
    parser.add_argument("--selectors", nargs="+", choices=list(COSTS), default=list(COSTS), help="to measure")
    parser.add_argument("--candidates", type=int, nargs="+", default=[10_000, 100_000], help="numbers of them")
    parser.add_argument("--percent", type=float, nargs="+", default=[0.68, 5.0], help="of the candidates, to choose")
    parser.add_argument("--dimensions", type=int, default=64, help="of the features")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic candidates")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # the fresh process is given this
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only:
        print(json.dumps(measure_all(options.only, options)))
        return
    measured = [row for name in options.selectors for row in measure_apart(name, options)]
    rows = [extrapolated(row, options) for row in measured]
    show(f"Selectors on one thread, {options.dimensions} dimensions", rows)
    if options.out:
        settings = {"dimensions": options.dimensions, "classes": CLASSES, "seed": options.seed}
        save(options.out, rows, environment("numpy"), **settings)


if __name__ == "__main__":
    main()
