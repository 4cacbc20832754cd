"""Content digests of files, remembered so that an unchanged folder is not read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from datamodules.progress import progress_bar

UNREADABLE = "unreadable"
"""Stands for the digest of a file that cannot be read; never remembered, so that it is tried again."""

Stamp = list[int]
"""What tells, without reading it, that a file has changed: size, modification and status change time in ns.

The last one moves where a file is replaced by another of the same size and time (`cp -p`, unpacked archives).
"""


def write_atomic(path: Path, text: str) -> None:
    """Writes a text file under a temporary name, then renames it, so that readers never meet half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, or UNREADABLE (the decoder will say why)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return UNREADABLE


def digest_files(paths: Sequence[Path], memo: Path) -> list[str]:
    """SHA-256 of each file; files that are as `memo` remembers them are not read.

    Args:
        paths: files, in the order of the result.
        memo: JSON file that keeps path, stamp and digest between calls; made anew when missing or damaged, and done
            without where it cannot be written.
    """
    known = _remembered(memo)
    stamps = {str(path): _stamp(path) for path in paths}
    digests = {path: known[path][1] for path, stamp in stamps.items() if path in known and known[path][0] == stamp}
    unread = [path for path in stamps if path not in digests]
    if unread:
        with progress_bar("hashing photographs", len(unread)) as advance:
            for path in unread:
                digests[path] = digest_file(Path(path))
                advance()
        fresh = {path: [stamps[path], digest] for path, digest in digests.items() if digest != UNREADABLE}
        with suppress(OSError):
            write_atomic(memo, json.dumps(fresh))
    return [digests[str(path)] for path in paths]


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:  # a dangling link, or gone since the folder was listed
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _remembered(memo: Path) -> dict[str, tuple[Stamp, str]]:
    try:
        return {path: (stamp, digest) for path, (stamp, digest) in json.loads(memo.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
