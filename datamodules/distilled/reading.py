"""Opening a distilled set: nothing is taken from it that is not as it was written."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from datamodules.budget import DataBudget
from datamodules.distilled.contents import (
    AGAIN,
    CARD,
    FILE_KEYS,
    IMAGE_NAME,
    LATENTS,
    METADATA,
    PROVENANCE,
    SCHEMA,
    DistilledSet,
)
from datamodules.distilled.latents import check_file, is_generator
from datamodules.fingerprint import UNREADABLE, digest_file
from datamodules.progress import progress_bar


def read_distilled(folder: Path, verify: bool = True) -> DistilledSet:
    """Opens a set and verifies every file against its sha256.

    Args:
        folder: of the set.
        verify: false trusts the files, for the processes of a run whose first one has verified them.

    Raises:
        FileNotFoundError: when the folder or one of its files is missing; the message names it.
        ValueError: when it is no distilled set, of a newer schema, a file was altered, an image was added, or latents
            and metadata are not as many; the message names it.
    """
    folder = folder.expanduser().absolute()
    provenance = read_provenance(folder)
    if verify:
        _verify(folder, provenance["sha256"])
    opened = DistilledSet(folder, provenance, _read_metadata(folder / METADATA, provenance["sha256"]))
    if opened.holds_latents:
        check_file(folder, len(opened.metadata))
    return opened


def read_provenance(folder: Path) -> dict[str, Any]:
    """The record of a set; nothing else of it is looked at.

    Raises:
        FileNotFoundError: when the folder or the record is missing.
        ValueError: when it is no record of a distilled set, or one of a newer schema.
    """
    path = folder / PROVENANCE
    if not path.is_file():
        missing = f"holds no {PROVENANCE}, so it is no distilled set" if folder.is_dir() else "is no folder"
        raise FileNotFoundError(
            f"{folder} {missing}; name a folder that python main.py predict --config configs/distill/select.yaml made"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    schema = content.get("schema") if isinstance(content, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(f"{path} has schema {schema} but this version knows {SCHEMA}; install a newer srdistill")
    if not _is_record(content):
        raise ValueError(f"{path} is no record of a distilled set (schema {schema}); {AGAIN}")
    return dict(content)


def unlisted_files(folder: Path, provenance: Mapping[str, Any]) -> Iterator[str]:
    """Names, relative to the folder, of the files in it that the set does not consist of."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return (name for name in names if name not in provenance["sha256"] and name not in (PROVENANCE, CARD))


def _is_record(content: Any) -> bool:
    """Whether everything that the framework reads from it is there; the rest is for people."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return False
    budget, digests = content.get("budget"), content.get("sha256")
    return (
        isinstance(budget, dict)
        and budget.keys() == {field.name for field in fields(DataBudget)}
        and isinstance(digests, dict)
        and METADATA in digests
        and _holds_one_kind(digests.keys() - {METADATA}, content)
        and isinstance(content.get("sizes"), list)
        and isinstance(content.get("scale"), int)
    )


def _holds_one_kind(names: Collection[str], content: Mapping[str, Any]) -> bool:
    """Whether a set holds images alone, or latents that their generator is known of."""
    if LATENTS not in names:
        return all(IMAGE_NAME.fullmatch(name) for name in names)
    return len(names) == 1 and is_generator(content.get("generator"))


def _verify(folder: Path, digests: Mapping[str, str]) -> None:
    with progress_bar(f"verifying {folder.name}", len(digests)) as advance:
        for name, digest in digests.items():
            _verify_file(folder / name, digest)
            advance()
    for name in unlisted_files(folder, {"sha256": digests}):
        if IMAGE_NAME.fullmatch(name):
            raise ValueError(f"{folder / name} is no part of the distilled set; remove it")


def _verify_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing from the distilled set; {AGAIN}")
    found = digest_file(path)
    if found == UNREADABLE:
        raise ValueError(f"{path} cannot be read; mend its permissions or the disk")
    if found != digest:
        raise ValueError(f"{path} was altered since the distilled set was written; {AGAIN}")


def _read_metadata(path: Path, digests: Mapping[str, str]) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing from the distilled set; {AGAIN}")
    with path.open(encoding="utf-8") as lines:
        metadata = [json.loads(line) for line in lines]
    named = [line[key] for line in metadata for key in FILE_KEYS if key in line]
    if sorted(named) != sorted(digests.keys() - {METADATA, LATENTS}):
        raise ValueError(f"{path} does not name the images that {PROVENANCE} lists; {AGAIN}")
    return metadata
