"""Features and scores of candidates: computed once, in batches of bounded memory, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from datamodules.paths import cache_errors
from datamodules.selection.candidates import Candidates
from datamodules.selection.interfaces import Criterion, Features, Floats, Indices, Part, Vectors

FORMAT = 1
KEPT = "what is computed of patches"
SECONDS = ".seconds"
SCORE_BITS = 20
"""Six decimal digits."""

FEATURE_BITS = 17
"""Five decimal digits."""


def embed(features: Features, candidates: Candidates, chosen: Indices, cache: Path, device: torch.device) -> Vectors:
    """Vectors of some of the candidates; computed, with a progress bar, when the cache does not hold them.

    They are rounded to 17 bits, five decimal digits: what was summed in double precision, as by Descriptor, then comes
    out the same on every machine. Trained networks compute in float32, and on another kind of machine some of their
    digits differ; the reduced precision that GPUs have for it (TF32) is kept off.

    Args:
        features: what to compute.
        candidates: patches.
        chosen: int64 (N,), which of them, at least one.
        cache: folder; the vectors lie in `features/` of it.
        device: to compute on.

    Returns:
        float32 (N, D), memory-mapped and read-only.

    Raises:
        OSError: when the cache cannot be written or is full.
        ValueError: when a vector is not finite, or the file in the cache is damaged.
    """

    def blocks() -> Iterator[Vectors]:
        features.load(device)
        for pairs in candidates.batches(chosen, "features of patches"):
            with exact_inference():
                vectors = features(pairs.to(device).to_float().hr)
            yield rounded(vectors.float().cpu().numpy(), FEATURE_BITS)

    path = features_path(features, candidates, chosen, cache)
    return cached_rows(path, len(chosen), blocks(), type(features).__name__)


def score(criterion: Criterion, candidates: Candidates, cache: Path, device: torch.device) -> Floats:
    """Scores of all the candidates, as `embed` makes vectors of some; rounded to 20 bits, six decimal digits.

    Args:
        criterion: what to compute.
        candidates: patches.
        cache: folder; the scores lie in `scores/` of it.
        device: to compute on.

    Returns:
        float64 (N,), memory-mapped and read-only.

    Raises:
        OSError: when the cache cannot be written or is full.
        ValueError: when a score is not finite, or the file in the cache is damaged.
    """
    everything = np.arange(len(candidates), dtype=np.int64)

    def blocks() -> Iterator[Floats]:
        for pairs in candidates.batches(everything, "scoring patches"):
            with exact_inference():
                scores = criterion(pairs.to(device))
            yield rounded(scores.cpu().double().numpy(), SCORE_BITS)

    path = scores_path(criterion, candidates, cache)
    return cached_rows(path, len(candidates), blocks(), type(criterion).__name__)


def features_path(features: Features, candidates: Candidates, chosen: Indices, cache: Path) -> Path:
    """File of the cache that holds the vectors."""
    return cache / "features" / f"{key(features, candidates, chosen)}.npy"


def scores_path(criterion: Criterion, candidates: Candidates, cache: Path) -> Path:
    """File of the cache that holds the scores of all candidates."""
    return cache / "scores" / f"{key(criterion, candidates, np.arange(len(candidates), dtype=np.int64))}.npy"


def rounded(values: NDArray[Any], bits: int) -> NDArray[Any]:
    """Floating-point numbers to so many significant bits, halves to even; infinite ones and NaN as they are.

    Bits and not decimal digits: scaling by a power of two is exact, so that the outcome is the same on every machine.
    """
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)


def key(part: Part, candidates: Candidates, chosen: Indices) -> str:
    """What the outcome depends on, as a hash: pixels, places and sizes of the patches, and settings of the part."""
    places = hashlib.sha256(candidates.places[chosen].tobytes()).hexdigest()
    content = [FORMAT, candidates.store.folder.name, candidates.size, places, part.identity()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def cached_rows(path: Path, count: int, blocks: Iterator[NDArray[Any]], what: str) -> NDArray[Any]:
    """The rows in a .npy file; written, block after block, when there is no such file.

    Safe when several processes ask at once: one writes, the others wait. What a killed one leaves has a temporary name
    and is removed by the next that writes the same file.

    Args:
        path: of the file.
        count: of rows.
        blocks: consecutive rows, (n, ...), not looked at when the file is there.
        what: the rows are, for errors.

    Returns:
        (count, ...), memory-mapped and read-only.

    Raises:
        OSError: when the file cannot be written.
        ValueError: when a block has a value that is not finite, or the file is damaged.
    """
    produce(path, lambda temporary: _stream(temporary, count, blocks, what))
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise damaged(path) from error


def cached_arrays(path: Path, compute: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Named arrays in a .npz file; computed when there is no such file, with the same care and errors as rows."""

    def write(temporary: Path) -> None:
        arrays = compute()
        with cache_errors(path.parent, KEPT), temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # of the stubs: allow_pickle may not be among the names

    produce(path, write)
    try:
        with np.load(path, allow_pickle=False) as saved:
            return {name: saved[name] for name in saved.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise damaged(path) from error


def produce(path: Path, write: Callable[[Path], None]) -> None:
    """Makes a file of the cache unless it is there, and notes the seconds that it took beside it.

    Args:
        path: of the file.
        write: writes it under a temporary name.
    """
    with cache_errors(path.parent, KEPT):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
    with lock:
        if not path.is_file():
            _write(path, write)


def seconds_spent(path: Path) -> float:
    """That making a file of the cache took; 0 where that was not noted."""
    note = path.with_suffix(SECONDS)
    return float(note.read_text()) if note.is_file() else 0.0


def damaged(path: Path) -> ValueError:
    """What to raise when a file of the cache cannot be read."""
    return ValueError(f"{path}: damaged; delete this file and run again")


def _write(path: Path, write: Callable[[Path], None]) -> None:
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    start = time.perf_counter()
    try:
        write(temporary)
        path.with_suffix(SECONDS).write_text(f"{time.perf_counter() - start:.3f}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _stream(path: Path, count: int, blocks: Iterator[NDArray[Any]], what: str) -> None:
    """Written, not mapped: on a full disk writing is an error, and writing to a map a crash."""
    first = next(blocks)
    header = {"descr": first.dtype.str, "fortran_order": False, "shape": (count, *first.shape[1:])}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in chain([first], blocks):
            if not np.isfinite(block).all():
                raise ValueError(
                    f"{what} is not a finite number for some patches; use another, or leave such patches out"
                )
            with cache_errors(path.parent, KEPT):
                file.write(np.ascontiguousarray(block).tobytes())


@contextmanager
def exact_inference() -> Iterator[None]:
    """No gradients, and float32 in full: no TF32, which cuDNN takes by default."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
