"""Decode once, read many: photographs and their LR, exact bicubic or given, in memory-mapped files.

A store is a folder in the cache: `hr.u8` and `lr.u8` hold the pixels of all images one after the other (uint8 RGB, rows
first; at scale 1 LR is HR, and there is no `lr.u8`), `index.json` their names and sizes, the files left out and why,
and the fingerprint. Its name is a hash of the images' content and of the settings, so a changed image makes another
store and an untouched folder is never decoded twice. It is built in a temporary folder and renamed; deleting the cache
is always safe.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock

from datamodules.bicubic import downscale
from datamodules.fingerprint import digest_files
from datamodules.image_files import UnreadableImage, read_rgb
from datamodules.paths import cache_errors
from datamodules.progress import progress_bar

FORMAT = 1
STALE_SECONDS = 24 * 3600
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Source:
    """A photograph to store.

    Attributes:
        name: that it goes by: relative to its root, POSIX.
        path: of the file.
        lr: file of its LR, 1 / scale of its size; None where LR is the exact bicubic reduction, and at scale 1.
    """

    name: str
    path: Path
    lr: Path | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    name: str
    reason: str


@dataclass
class StoreIndex:
    """What `index.json` holds; `sizes` are (height, width) of HR in pixels, multiples of the scale."""

    scale: int
    fingerprint: str
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


class PatchStore:
    """Read access to a built store; cheap to pickle, opens its files on first use in each process.

    Args:
        folder: the store's folder.

    Raises:
        ValueError: when its files have lost bytes since they were written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        raw = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.index = StoreIndex(
            raw["scale"],
            raw["fingerprint"],
            raw["names"],
            [(height, width) for height, width in raw["sizes"]],
            [Skipped(**entry) for entry in raw["skipped"]],
        )
        areas = np.array([height * width for height, width in self.index.sizes], dtype=np.int64)
        self._offsets = 3 * np.concatenate([[0], np.cumsum(areas)])
        self._maps: dict[str, mmap.mmap] = {}
        whole = int(self._offsets[-1])
        expected = {"hr.u8": whole}
        if self.index.scale > 1:
            expected["lr.u8"] = whole // self.index.scale**2
        if any((folder / name).stat().st_size != size for name, size in expected.items()):
            raise ValueError(f"{folder}: damaged store of decoded photographs; delete this folder and run again")

    def __len__(self) -> int:
        return len(self.index.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def hr(self, image: int) -> Pixels:
        """HR pixels of one image: read-only view, uint8, (H, W, 3)."""
        height, width = self.index.sizes[image]
        return self._view("hr.u8", int(self._offsets[image]), height, width)

    def lr(self, image: int) -> Pixels:
        """LR pixels of one image: read-only view, uint8, (H / scale, W / scale, 3); at scale 1 those of HR."""
        if self.index.scale == 1:
            return self.hr(image)
        height, width = (side // self.index.scale for side in self.index.sizes[image])
        return self._view("lr.u8", int(self._offsets[image]) // self.index.scale**2, height, width)

    def release(self) -> None:
        """Gives mapped pages back to the system (they stay in its page cache), so that resident memory stays flat."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps.values():
                mapped.madvise(mmap.MADV_DONTNEED)

    def _view(self, name: str, offset: int, height: int, width: int) -> Pixels:
        if name not in self._maps:
            with (self.folder / name).open("rb") as file:
                self._maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        flat = np.frombuffer(self._maps[name], dtype=np.uint8, count=height * width * 3, offset=offset)
        return flat.reshape(height, width, 3)


def open_store(sources: Sequence[Source], scale: int, cache: Path) -> PatchStore:
    """The store of these photographs at this scale; built, with a progress bar, when the cache does not hold it.

    Safe when several processes ask at once: one builds, the others wait. A build that was killed leaves only a
    temporary folder, which the next build of the same store removes.

    Args:
        sources: photographs; unreadable or too small ones are recorded in the index, not raised.
        scale: integer factor between HR and LR.
        cache: folder that stores live in.

    Raises:
        OSError: when the cache cannot be written or is full.
        ValueError: when the store in the cache is damaged.
    """
    with cache_errors(cache, "decoded photographs"):
        return PatchStore(_ready(sources, scale, cache))


def _ready(sources: Sequence[Source], scale: int, cache: Path) -> Path:
    """Folder of the store, complete."""
    files = [source.path for source in sources] + [source.lr for source in sources if source.lr is not None]
    memo = _key([str(path) for path in files])
    digests = dict(zip(files, digest_files(files, cache / "digests" / f"{memo[:16]}.json"), strict=True))
    content = [[source.name, *(digests[path] for path in (source.path, source.lr) if path)] for source in sources]
    fingerprint = _key([FORMAT, scale, content])
    # With this optional package more TIFF files can be read: installing it must not leave the old store in use.
    folder = cache / "stores" / (fingerprint[:32] + ("-codecs" if find_spec("imagecodecs") else ""))
    if not (folder / "index.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "index.json").is_file():
                _build(sources, StoreIndex(scale, fingerprint), folder)
    return folder


def _key(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _build(sources: Sequence[Source], index: StoreIndex, folder: Path) -> None:
    prefix = f".building-{folder.name}."
    _remove_leftovers(folder.parent, prefix)
    temporary = folder.with_name(prefix + uuid.uuid4().hex[:8])
    temporary.mkdir()
    try:
        with (temporary / "hr.u8").open("wb") as hr, _open_lr(temporary, index.scale) as lr:
            _write_pixels(sources, index, hr, lr)
        (temporary / "index.json").write_text(json.dumps(asdict(index)), encoding="utf-8")
        temporary.rename(folder)
    except OSError:
        # On file systems without working locks another process may have finished first: its store is the same.
        if not (folder / "index.json").is_file():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(parent: Path, own: str) -> None:
    """Of builds that were killed: those of the same store, whose lock is held, and old ones of others."""
    for leftover in parent.glob(".building-*"):
        if leftover.name.startswith(own) or time.time() - leftover.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _open_lr(folder: Path, scale: int) -> AbstractContextManager[IO[bytes] | None]:
    return nullcontext() if scale == 1 else (folder / "lr.u8").open("wb")


def _write_pixels(sources: Sequence[Source], index: StoreIndex, hr: IO[bytes], lr: IO[bytes] | None) -> None:
    with progress_bar("decoding photographs", len(sources)) as advance:
        for source, pair in _decode_all(sources, index.scale):
            if isinstance(pair, str):
                index.skipped.append(Skipped(source.name, pair))
            else:
                hr.write(pair[0].tobytes())
                if lr is not None:
                    lr.write(pair[1].tobytes())
                index.names.append(source.name)
                index.sizes.append((pair[0].shape[0], pair[0].shape[1]))
            advance()


def _decode_all(sources: Sequence[Source], scale: int) -> Iterator[tuple[Source, tuple[Pixels, Pixels] | str]]:
    """Decodes in threads, a few images ahead of the writer, so that memory does not grow with the folder."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(sources), 2 * workers):
            some = sources[start : start + 2 * workers]
            yield from zip(some, pool.map(lambda source: _decode(source, scale), some), strict=True)


def _decode(source: Source, scale: int) -> tuple[Pixels, Pixels] | str:
    try:
        image = read_rgb(source.path)
        lr = None if source.lr is None else read_rgb(source.lr)
    except UnreadableImage as error:
        return error.reason if error.path == source.path else f"LR file {error.path.name}: {error.reason}"
    height, width = (side - side % scale for side in image.shape[:2])
    if min(height, width) == 0:
        return f"too small: {image.shape[1]} x {image.shape[0]} pixels"
    hr = np.ascontiguousarray(image[:height, :width])
    if scale == 1:
        return hr, hr
    if lr is None:
        lr = downscale(torch.from_numpy(hr).permute(2, 0, 1), scale).permute(1, 2, 0).contiguous().numpy()
    if lr.shape[:2] != (height // scale, width // scale):
        wanted = f"{width // scale} x {height // scale}"
        return f"LR file has {lr.shape[1]} x {lr.shape[0]} pixels, expected {wanted}"
    return hr, lr
