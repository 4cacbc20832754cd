"""Megapixels per second of scoring candidate patches by PSNR of bicubic, ours against the plain way, side by side.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --case BSD400 64 64 --case UHD 512 256 --out benchmarks/results/scoring.json

Run it from the root of the repository (`pip install opencv-python-headless` first). All score the same patches on one
thread:

- ``plain``: patch by patch with OpenCV: grey, cubic resize by 1/4 and by 4 in float32, PSNR; from decoded images in
  memory to scores. (Its kernel is another, and shrinks without antialiasing; that is not what is compared.)
- ``ours``: `Candidates` and `PSNRBicubic`, from the opened store to scores; ``reading`` and ``scoring`` alone are the
  time for its two halves;
- ``ours on cuda``: the same with the scoring on a GPU, where there is one.

They are measured in turn, and again; speeds are of the median round, in HR pixels of the patches, each counted as often
as patches hold it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from reporting import Row, environment, save, show

try:
    import cv2
except ModuleNotFoundError:
    sys.exit("this benchmark compares with OpenCV, which is not installed: pip install opencv-python-headless")

from datamodules import RealImages
from datamodules.pair import PairBatch
from datamodules.selection.candidates import BATCH_PIXELS, Candidates
from datamodules.selection.criteria import PSNRBicubic

SCALE = 4
DEFAULT_CASE = ("embedded", "64", "64")
Images = dict[int, np.ndarray]


def plain_score(patch: np.ndarray) -> float:
    """PSNR of bicubic of one patch, uint8 (side, side, 3), in dB."""
    side = len(patch)
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (side // SCALE, side // SCALE), interpolation=cv2.INTER_CUBIC)
    large = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    mse = float(np.mean((grey - large) ** 2))
    return 10 * np.log10(255**2 / mse) if mse else np.inf


def score_plainly(candidates: Candidates, images: Images) -> list[float]:
    """The plain way."""
    side = candidates.size
    places = candidates.places.tolist()
    return [plain_score(images[image][top : top + side, left : left + side]) for image, top, left in places]


def batches(candidates: Candidates) -> Iterator[PairBatch]:
    """What `Candidates.batches` yields, without a progress bar."""
    numbers = np.arange(len(candidates))
    step = max(1, BATCH_PIXELS // candidates.size**2)
    for start in range(0, len(numbers), step):
        yield candidates.pairs(numbers[start : start + step])


def score_ours(candidates: Candidates, device: torch.device) -> list[float]:
    """Our way."""
    criterion = PSNRBicubic()
    return torch.cat([criterion(pairs.to(device)).cpu() for pairs in batches(candidates)]).tolist()


def read_only(candidates: Candidates) -> list[float]:
    """Reads what `score_ours` scores."""
    return [float(len(pairs)) for pairs in batches(candidates)]


def seconds(function: Callable[[], list[float]]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def opened(root: str, size: int, stride: int) -> Candidates:
    """Candidates over all photographs of a folder."""
    data = RealImages(root, validation=1, scale=SCALE, patch_size=size, batch_size=1, seed=0)
    data.prepare_data()
    data.setup("fit")
    return Candidates(data.store, range(len(data.store)), size, stride)


def measure(root: str, size: int, stride: int, rounds: int) -> Row:
    """One case: median speeds in MP/s and their ratio."""
    candidates = opened(root, size, stride)
    images = {image: np.array(candidates.store.hr(image)) for image in set(candidates.places[:, 0].tolist())}
    named: dict[str, Callable[[], list[float]]] = {
        "plain": lambda: score_plainly(candidates, images),
        "ours": lambda: score_ours(candidates, torch.device("cpu")),
        "reading": lambda: read_only(candidates),
    }
    if torch.cuda.is_available():
        named["ours on cuda"] = lambda: score_ours(candidates, torch.device("cuda"))
    spent: dict[str, list[float]] = {who: [] for who in named}
    for _ in range(rounds + 1):
        for who, function in named.items():
            spent[who].append(seconds(function))
    median = {who: statistics.median(values[1:]) for who, values in spent.items()}  # the first round warms up
    median["scoring"] = statistics.median(o - r for o, r in zip(spent["ours"][1:], spent["reading"][1:], strict=True))
    megapixels = len(candidates) * size**2 / 1e6
    ratios = [o / p for o, p in zip(spent["plain"][1:], spent["ours"][1:], strict=True)]
    return {
        "photographs": Path(root).name,
        "patches": len(candidates),
        "size": size,
        "stride": stride,
        **{f"{who}, MP/s": round(megapixels / time_, 1) for who, time_ in median.items()},
        "ours / plain": round(statistics.median(ratios), 2),
    }


def main() -> None:
    """Measure, print a table and, with --out, write JSON."""
    parser = argparse.ArgumentParser(description="Scoring by PSNR of bicubic: ours against OpenCV patch by patch.")
    parser.add_argument(
        "--case",
        nargs=3,
        action="append",
        metavar=("ROOT", "SIZE", "STRIDE"),
        help="folder of photographs (or embedded), side and stride of the patches; default: embedded 64 64",
    )
    parser.add_argument("--rounds", type=int, default=7, help="times that everything is measured; the median counts")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cases = options.case or [DEFAULT_CASE]
    rows = [measure(root, int(size), int(stride), options.rounds) for root, size, stride in cases]
    show(f"PSNR of bicubic x{SCALE}, grey, one thread: HR megapixels of patches per second", rows)
    if options.out:
        save(options.out, rows, environment("numpy") | {"opencv": cv2.__version__}, rounds=options.rounds)


if __name__ == "__main__":
    main()
