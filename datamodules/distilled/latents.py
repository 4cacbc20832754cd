"""The latents of a set: one tensor, a row for each line of metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.distilled.contents import AGAIN, LATENTS, METADATA, DistilledPatch, DistilledSet

Latents = NDArray[np.floating[Any]]

TENSOR = "latents"
DTYPES = {"F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}


def check_latent(patch: DistilledPatch, number: int, first: Latents | None) -> Latents:
    """The latent of a patch, after a look at it.

    Args:
        patch: that has one.
        number: of the patch in its set.
        first: latent of the set's first patch; None where this is the first.

    Raises:
        ValueError: when the patch has an LR too, or the latent does not fit the first, is no floating-point array, or
            not finite.
    """
    latent = patch.latent
    assert latent is not None
    if patch.lr is not None:
        raise ValueError(
            f"patch {number} has a latent and an LR; a set of latents holds no images, so set lr to None: it is "
            "made of what the latent decodes to"
        )
    if latent.dtype not in DTYPES.values():
        raise ValueError(f"patch {number}: its latent is {latent.dtype}; expected float16 or float32")
    if first is not None and (latent.dtype, latent.shape) != (first.dtype, first.shape):
        raise ValueError(
            f"patch {number}: its latent is {latent.dtype} {latent.shape} but those before it {first.dtype} "
            f"{first.shape}; all latents of a set have one shape and dtype"
        )
    if not np.isfinite(latent).all():
        raise ValueError(f"patch {number}: its latent is not finite everywhere; store it as float32, or leave it out")
    return latent


def is_generator(record: Any) -> bool:
    """Whether this tells which generator latents are of, as `provenance["generator"]` of their set must."""
    return isinstance(record, Mapping) and isinstance(record.get("fingerprint"), str)


def write_latents(folder: Path, latents: Sequence[Latents]) -> Path:
    """Writes them; returns the file."""
    from safetensors.numpy import save_file

    save_file({TENSOR: np.stack(latents)}, folder / LATENTS)
    return folder / LATENTS


def check_file(folder: Path, count: int) -> None:
    """Looks at the head of the file alone.

    Raises:
        FileNotFoundError: when it is missing.
        ValueError: when it is damaged or has not as many latents as there are lines of metadata.
    """
    with _explained(folder / LATENTS) as file:
        head = file.get_slice(TENSOR)
        shape, dtype = head.get_shape(), head.get_dtype()
    if dtype not in DTYPES or not shape:
        raise ValueError(f"{folder / LATENTS} holds {dtype} {shape}; expected F16 or F32 (N, ...); {AGAIN}")
    if shape[0] != count:
        raise ValueError(f"{folder / LATENTS} has {shape[0]} latents but {METADATA} {count} lines; {AGAIN}")


def read_latents(opened: DistilledSet) -> Latents:
    """The latents of a set, (N, ...), in the dtype that they are stored in; errors as for `check_file`."""
    with _explained(opened.folder / LATENTS) as file:
        latents: Latents = file.get_tensor(TENSOR)
    return latents


@contextmanager
def _explained(path: Path) -> Iterator[Any]:
    """The file, open."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing from the distilled set; {AGAIN}")
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); {AGAIN}") from error
