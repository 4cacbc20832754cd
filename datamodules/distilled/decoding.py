"""The images of a set of latents: decoded once by their generator, and kept in the cache as a set of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock

from datamodules.distilled.contents import LATENTS, DistilledPatch, DistilledSet
from datamodules.distilled.latents import Latents, read_latents
from datamodules.distilled.reading import read_distilled
from datamodules.distilled.writing import write_distilled
from datamodules.pair import to_uint8
from datamodules.paths import cache_errors
from datamodules.progress import progress_bar

if TYPE_CHECKING:
    from lightning_modules.gan.generator import Generator

FORMAT = 1
AT_ONCE = 16
CPU = torch.device("cpu")
KEPT = "decoded latents"


def images_of(opened: DistilledSet, cache: Path, device: torch.device = CPU, verify: bool = False) -> DistilledSet:
    """The set itself where it holds images; else a set of the images that its latents stand for, in the same order.

    They are decoded, with a progress bar, when the cache does not hold them. Safe when several processes ask at once:
    one decodes, the others wait. What a killed one leaves has a temporary name and is removed by the next that decodes
    the same latents.

    Args:
        opened: of images or latents.
        cache: folder; the images lie in `decoded/` of it.
        device: to decode on.
        verify: whether to compare the images in the cache with their digests.

    Raises:
        FileNotFoundError: when the generator is not where it was.
        OSError: when the cache cannot be written or is full.
        ValueError: when the generator is another one now, does not fit the latents or makes no finite pixels of them,
            or the images in the cache are damaged.
    """
    if not opened.holds_latents:
        return opened
    folder = cache.absolute() / "decoded" / _key(opened)
    with cache_errors(folder.parent, KEPT):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
    with lock:
        if not folder.exists():
            _decode(opened, folder, device)
    try:
        return read_distilled(folder, verify)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{folder}: damaged; delete this folder and run again") from error


def _key(opened: DistilledSet) -> str:
    """What the pixels depend on: the latents, and everything of their generator but where it lies."""
    generator = {key: value for key, value in opened.provenance["generator"].items() if key != "source"}
    content = [FORMAT, opened.provenance["sha256"][LATENTS], opened.scale, generator]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _decode(opened: DistilledSet, folder: Path, device: torch.device) -> None:
    from lightning_modules.gan.sources import load_generator

    record, latents = opened.provenance["generator"], read_latents(opened)
    generator = load_generator(record).to(device)
    if latents.shape[1:] != tuple(generator.latent_shape):
        raise ValueError(
            f"{opened.folder} has latents of {latents.shape[1:]} but its generator {record.get('source')} takes "
            f"{tuple(generator.latent_shape)}; write the set again"
        )
    made_from = {"generator": record, "latents_sha256": opened.provenance["sha256"][LATENTS]}
    with cache_errors(folder.parent, KEPT):
        write_distilled(folder, _patches(opened, latents, generator, device), opened.scale, made_from)


def _patches(
    opened: DistilledSet, latents: Latents, generator: Generator, device: torch.device
) -> Iterator[DistilledPatch]:
    starts = range(0, len(latents), AT_ONCE)
    with progress_bar(f"decoding {opened.folder.name}", len(starts)) as advance:
        for start in starts:
            some = torch.from_numpy(latents[start : start + AT_ONCE]).to(device).float()
            with torch.no_grad():
                decoded = generator.decode(some)
            if not decoded.isfinite().all():
                raise ValueError(f"{opened.folder}: its latents decode to numbers that are not finite; make them again")
            pixels = to_uint8(decoded).permute(0, 2, 3, 1).cpu().numpy()
            for hr, line in zip(pixels, opened.metadata[start : start + AT_ONCE], strict=True):
                yield DistilledPatch(hr, None, line)
            advance()
