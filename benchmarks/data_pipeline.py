"""Training patches delivered per second: ours against decoding two image files for each patch, side by side.

    python benchmarks/data_pipeline.py
    python benchmarks/data_pipeline.py --root embedded BSD400 --out benchmarks/results/data_pipeline.json

Run it from the root of the repository. Both sides deliver the same: float32 batches of random 64-pixel HR crops with
their 16-pixel bicubic LR crops (x4), flipped and rotated at random, from the same photographs, through a DataLoader:

- ``files``: each patch opens and decodes an HR and an LR file, as BasicSR's PairedImageDataset does: HR as it lies in
  the folder, LR as PNG. In its favour, pixels are cropped before they become floats, and not after;
- ``ours``: ``RealImages``, its memory-mapped store and the recipe ``plain`` on the whole batch.

They are measured in turn, and again, the best of all rounds. Building our store (once per folder) and writing LR files
(once for BasicSR) is left out on both sides. A first batch, which starts the workers, is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from reporting import Row, environment, save, show
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from datamodules import RealImages
from datamodules.augmentation import Compose, resolve
from datamodules.paths import EMBEDDED, EMBEDDED_TRAIN, embedded_photographs, resolve_folder

SCALE, PATCH, BATCH = 4, 64, 16
ENDLESS = 10**9


@dataclass
class FilePairs(Dataset[tuple[Tensor, Tensor]]):
    """Decodes both files of an image for each patch.

    Attributes:
        hr: HR files.
        lr: their LR files.
        seed: of crops, flips and rotations.
    """

    hr: list[Path]
    lr: list[Path]
    seed: int

    def __len__(self) -> int:
        return len(self.hr)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        lr, hr = _decode(self.lr[index]), _decode(self.hr[index])
        side = PATCH // SCALE
        top, left = (int(torch.randint(length - side + 1, ())) for length in lr.shape[:2])
        lr = lr[top : top + side, left : left + side]
        hr = hr[top * SCALE : top * SCALE + PATCH, left * SCALE : left * SCALE + PATCH]
        across, down, turn = (torch.rand(3) < 0.5).tolist()
        return _transformed(lr, across, down, turn), _transformed(hr, across, down, turn)


def _decode(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _transformed(pixels: np.ndarray, across: bool, down: bool, turn: bool) -> Tensor:
    pixels = pixels[:, ::-1] if across else pixels
    pixels = pixels[::-1] if down else pixels
    pixels = pixels.swapaxes(0, 1) if turn else pixels
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / 255)


def from_files(data: RealImages, hr: list[Path], lr_folder: Path, workers: int) -> Iterator[Tensor]:
    """HR batches without end; LR comes along."""
    pairs = FilePairs(hr, [lr_folder / f"{number}.png" for number in range(len(hr))], data.seed)
    torch.manual_seed(pairs.seed)
    sampler = RandomSampler(pairs, replacement=True, num_samples=ENDLESS)
    for _, patches in DataLoader(pairs, BATCH, sampler=sampler, num_workers=workers):
        yield patches


def from_store(data: RealImages, workers: int) -> Iterator[Tensor]:
    """HR batches without end; LR comes along."""
    data.num_workers = workers
    loader, augment = data.train_dataloader(), Compose(resolve("plain"), data.seed)
    while True:
        for batch in loader:
            yield augment(batch.to_float()).hr


def per_second(stream: Iterator[Tensor], seconds: float) -> float:
    """Patches delivered per second, measured for about that many seconds."""
    first = next(stream)
    assert first.shape == (BATCH, 3, PATCH, PATCH)
    assert first.dtype == torch.float32
    patches, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        patches += len(next(stream))
    return patches / spent


def opened(root: str, seed: int) -> RealImages:
    """The photographs of a folder, decoded, all but one to train on."""
    data = RealImages(root, validation=1, scale=SCALE, patch_size=PATCH, batch_size=BATCH, seed=seed)
    data.prepare_data()
    data.setup("fit")
    return data


def hr_files(data: RealImages) -> list[Path]:
    """The files that the store was made from, in its order."""
    if data.root == EMBEDDED:
        named = {path.name: path for path in embedded_photographs(EMBEDDED_TRAIN)}
        return [named[name] for name in data.store.index.names]
    return [resolve_folder(data.root, "--root") / name for name in data.store.index.names]


def write_lr(data: RealImages, folder: Path) -> None:
    """The LR files that BasicSR reads, as PNG."""
    for image in range(len(data.store)):
        Image.fromarray(data.store.lr(image)).save(folder / f"{image}.png")


def measure(data: RealImages, options: argparse.Namespace) -> list[Row]:
    """One row for each number of workers."""
    hr = hr_files(data)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        write_lr(data, Path(folder))
        for workers in options.workers:
            files, ours = [], []
            for _ in range(options.rounds):
                files.append(per_second(from_files(data, hr, Path(folder), workers), options.seconds))
                ours.append(per_second(from_store(data, workers), options.seconds))
            rows.append(
                {
                    "photographs": Path(data.root).name,
                    "number": len(hr),
                    "workers": workers,
                    "files, patches/s": round(max(files)),
                    "ours, patches/s": round(max(ours)),
                    "ratio": round(max(ours) / max(files), 1),
                }
            )
    return rows


def main() -> None:
    """Measure, print a table and, with --out, write JSON."""
    parser = argparse.ArgumentParser(description="Patches per second: our store against decoding files per patch.")
    parser.add_argument("--root", nargs="+", default=["embedded"], help="folders of photographs")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="numbers of DataLoader workers")
    parser.add_argument("--seconds", type=float, default=1, help="how long each side is measured in a round")
    parser.add_argument("--rounds", type=int, default=10, help="times that everything is measured; the best counts")
    parser.add_argument("--seed", type=int, default=0, help="of crops and augmentations")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for root in options.root:
        rows += measure(opened(root, options.seed), options)
    show(f"Patches per second: {PATCH}-px HR and {PATCH // SCALE}-px LR in batches of {BATCH}", rows)
    if options.out:
        settings = {name: getattr(options, name) for name in ("seed", "seconds", "rounds")}
        save(options.out, rows, environment("numpy", "pillow"), settings=settings)


if __name__ == "__main__":
    main()
