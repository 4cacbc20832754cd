"""Writing a distilled set: patch by patch, into a folder that appears when it is complete."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.budget import DataBudget
from datamodules.distilled.card import dataset_card
from datamodules.distilled.contents import (
    CARD,
    FILE_KEYS,
    LATENTS,
    METADATA,
    PROVENANCE,
    SCHEMA,
    DistilledPatch,
    DistilledSet,
    Pixels,
)
from datamodules.distilled.latents import Latents, check_latent, is_generator, write_latents
from datamodules.distilled.placing import new_folder
from datamodules.distilled.reading import read_distilled, read_provenance, unlisted_files
from datamodules.fingerprint import digest_file
from datamodules.software import describe_software

PNG_LEVEL = 3
"""zlib's effort: photographs are 1 % larger than at level 9, in half its time (64-pixel patches) or a tenth (256)."""


def write_distilled(
    folder: Path, patches: Iterable[DistilledPatch], scale: int, provenance: Mapping[str, Any], overwrite: bool = False
) -> DistilledSet:
    """Writes a set under a temporary name and renames it; a failure leaves nothing, or the old set.

    Args:
        folder: must not exist unless `overwrite`.
        patches: streamed, their pixels never all in memory; all with LR or all without, all with a latent or none,
            and all with the same keys of metadata.
        scale: integer factor of the LR, where patches have one; else the one that the set was made for. At scale 1,
            where training degrades HR anew each time, no LR is written.
        provenance: what is known of the method, plain values that JSON can hold. Read here: `method`; `command`, the
            words of the command line; `full_pixels`, HR pixels of the full set; `teacher`, where one made the targets:
            a mapping with `file`, `weight` and, where known, `training_seconds` and `data_budget` (as
            `DataBudget.to_dict`), or a few words; `generator`, where patches have latents: a mapping with `source`,
            `fingerprint`, and whatever else `lightning_modules.gan.sources.load_generator` reads. Other keys are kept
            as they are: `config`, `seed`, `source_fingerprint`, `seconds` ... Schema, files' sha256, budget, versions,
            commit and time are added; to latents `png_bytes`, what their patches would take as PNG.
        overwrite: replace an existing distilled set (never a folder that is none, or holds other files too).

    Returns:
        The set as it lies there now.

    Raises:
        FileExistsError: see `refuse_existing`; or when another process is writing the folder.
        ValueError: when there is no patch, one does not fit the others or the scale, or a value does not fit in JSON.
    """
    folder = folder.expanduser().resolve()
    _to_json(provenance, "provenance")  # before hours of work, not after
    with new_folder(folder) as temporary:
        refuse_existing(folder, overwrite)
        tally = _write_patches(temporary, patches, scale, provenance.get("generator"))
        record = _record(tally, scale, provenance)
        (temporary / PROVENANCE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(dataset_card(folder.name, record, tally.columns), encoding="utf-8")
        refuse_existing(folder, overwrite)  # nobody else may have put something there meanwhile
    return read_distilled(folder, verify=False)


@dataclass
class _Tally:
    """What adds up while patches are written; `columns` are the keys of a line of metadata.

    `png_bytes` are those of the images, written or, where there are latents, not.
    """

    images: int = 0
    pixels: int = 0
    png_bytes: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    sha256: dict[str, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    latents: list[Latents] = field(default_factory=list)
    latent_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Of what the set holds."""
        return self.latent_bytes or self.png_bytes


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """What `write_distilled` refuses to replace, for callers that ask before hours of work.

    Args:
        folder: where a set is to be written.
        overwrite: whether a set that lies there may be replaced.

    Raises:
        FileExistsError: when the folder exists and `overwrite` is not set, it is no distilled set, or it holds other
            files too.
    """
    if not folder.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"{folder} exists and is not overwritten: name another folder, or set overwrite "
            "(--distilled.overwrite true)"
        )
    try:
        other = next(unlisted_files(folder, read_provenance(folder)), None)
    except (OSError, ValueError) as error:
        raise FileExistsError(f"{folder} exists and is no distilled set that could be replaced: {error}") from None
    if other is not None:
        raise FileExistsError(
            f"{folder} is not replaced: {other} in it is no part of the distilled set; move it away, "
            "or name another folder"
        )


def _write_patches(folder: Path, patches: Iterable[DistilledPatch], scale: int, generator: Any) -> _Tally:
    tally = _Tally()
    with (folder / METADATA).open("w", encoding="utf-8", newline="\n") as lines:
        for number, patch in enumerate(patches):
            _check_pixels(patch, number, scale)
            height, width = patch.hr.shape[:2]
            if patch.latent is None:
                files = _write_images(folder, patch, number, scale, tally)
            else:
                files = _take_latent(patch, number, generator, tally)
            line = {**files, **{key: value for key, value in patch.metadata.items() if key not in FILE_KEYS}}
            _check_columns(line, number, tally)
            lines.write(_to_json(line, f"patch {number}: its metadata") + "\n")
            tally.images += 1
            tally.pixels += height * width
            tally.sizes.add((height, width))
    if not tally.images:
        raise ValueError("a distilled set needs at least one patch and the method gave none; raise its budget")
    if tally.latents:
        file = write_latents(folder, tally.latents)
        tally.latent_bytes, tally.sha256[LATENTS] = file.stat().st_size, digest_file(file)
    tally.sha256[METADATA] = digest_file(folder / METADATA)
    return tally


def _write_images(folder: Path, patch: DistilledPatch, number: int, scale: int, tally: _Tally) -> dict[str, str]:
    """The files of a patch, by their keys of metadata."""
    if tally.latents:
        raise ValueError(f"patch {number} has no latent but those before it have one; all patches of a set, or none")
    files = {"file_name": _write_png(folder, f"images/{number:06}.png", patch.hr, tally)}
    if patch.lr is not None and scale > 1:
        files["lr_file_name"] = _write_png(folder, f"lr_x{scale}/{number:06}.png", patch.lr, tally)
    return files


def _take_latent(patch: DistilledPatch, number: int, generator: Any, tally: _Tally) -> dict[str, str]:
    """No files: latents, which are small, are written together."""
    if not is_generator(generator):
        raise ValueError(
            "patches have latents but provenance has no generator; give provenance['generator'], a mapping with the "
            f"generator's source and fingerprint, not {generator}"
        )
    if number > len(tally.latents):
        raise ValueError(f"patch {number} has a latent but those before it have none; all patches of a set, or none")
    tally.latents.append(check_latent(patch, number, tally.latents[0] if tally.latents else None))
    tally.png_bytes += len(encode_png(patch.hr))
    return {}


def _check_pixels(patch: DistilledPatch, number: int, scale: int) -> None:
    for kind, pixels in (("HR", patch.hr), ("LR", patch.lr)):
        if pixels is not None and (pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3):
            raise ValueError(
                f"patch {number}: {kind} is {pixels.dtype} {pixels.shape}; expected uint8 (height, width, 3)"
            )
    height, width = patch.hr.shape[:2]
    if min(height, width) == 0 or height % scale or width % scale:
        raise ValueError(f"patch {number}: HR is {width} x {height} pixels; expected multiples of the scale {scale}")
    if patch.lr is not None and patch.lr.shape[:2] != (height // scale, width // scale):
        raise ValueError(
            f"patch {number}: LR is {patch.lr.shape[1]} x {patch.lr.shape[0]} pixels but HR of {width} x {height} "
            f"at x{scale} asks for {width // scale} x {height // scale}"
        )


def _check_columns(line: Mapping[str, Any], number: int, tally: _Tally) -> None:
    """Readers of metadata.jsonl make a table of it."""
    columns = sorted(line)
    tally.columns = tally.columns or columns
    if columns != tally.columns:
        raise ValueError(
            f"patch {number} has {', '.join(columns)} but those before it {', '.join(tally.columns)}; "
            "all patches of a set have the same metadata, and all an LR or none"
        )


def encode_png(pixels: Pixels) -> bytes:
    """An image file as sets hold it, of uint8 RGB (H, W, 3)."""
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG", compress_level=PNG_LEVEL)
        return file.getvalue()


def _write_png(folder: Path, name: str, pixels: Pixels, tally: _Tally) -> str:
    content = encode_png(pixels)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    tally.png_bytes += len(content)
    tally.sha256[name] = hashlib.sha256(content).hexdigest()
    return name


def _record(tally: _Tally, scale: int, provenance: Mapping[str, Any]) -> dict[str, Any]:
    full, teacher = provenance.get("full_pixels"), provenance.get("teacher")
    percent = 100 * tally.pixels / full if full else None
    if isinstance(teacher, Mapping):
        teacher = f"{teacher.get('file')}, weight {teacher.get('weight')}; {_training_cost(teacher)}"
    return {
        **provenance,
        **describe_software(),
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "scale": scale,
        "budget": asdict(DataBudget(tally.images, tally.pixels, tally.bytes, percent, teacher)),
        **({"png_bytes": tally.png_bytes} if tally.latents else {}),
        "sizes": sorted(tally.sizes),
        "sha256": tally.sha256,
    }


def _training_cost(teacher: Mapping[str, Any]) -> str:
    """A few words for the budget: the cost of a set with a teacher is that of the teacher too."""
    seconds, data = teacher.get("training_seconds"), teacher.get("data_budget")
    if seconds is None and data is None:
        return "its cost is unknown"
    took = "an unknown time" if seconds is None else f"{seconds:.0f} s"
    return f"it took {took} on {'unknown data' if data is None else DataBudget(**data).brief()}"


def _to_json(content: Mapping[str, Any], what: str) -> str:
    try:
        return json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} holds a value that does not fit in JSON: {error}") from None
