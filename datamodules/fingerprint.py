"""Content digests of files, remembered so that an unchanged folder is not read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path


def write_atomic(path: Path, text: str) -> None:
    """Writes a text file under a temporary name, then renames it, so that readers never meet half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; of nothing when the file cannot be read (the decoder will say why)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return hashlib.sha256().hexdigest()


def digest_files(paths: Sequence[Path], memo: Path) -> list[str]:
    """SHA-256 of each file; files whose size and modification time are known from `memo` are not read.

    Args:
        paths: files, in the order of the result.
        memo: JSON file that keeps path, size, time and digest between calls; made anew when missing or damaged.
    """
    try:
        known: dict[str, list[str | int]] = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    fresh: dict[str, list[str | int]] = {}
    for path in paths:
        status = path.stat()
        entry = known.get(str(path), [])
        if entry[:2] != [status.st_size, status.st_mtime_ns]:
            entry = [status.st_size, status.st_mtime_ns, digest_file(path)]
        fresh[str(path)] = entry
    if fresh != known:
        write_atomic(memo, json.dumps(fresh))
    return [str(fresh[str(path)][2]) for path in paths]
