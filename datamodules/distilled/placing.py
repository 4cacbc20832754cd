"""A folder that is there completely or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder`, which takes its name, and its place, when the block has ended well.

    An old folder of that name is renamed, and deleted once the new one is in place; no system call of Python's
    exchanges the two at once. A process killed at any moment leaves at most hidden siblings, which the next call for
    the same folder removes, or, if it was killed between the two renames, puts back.

    Args:
        folder: absolute, its links resolved, or the link would be replaced instead of what it leads to.

    Raises:
        FileExistsError: when another process is writing the same folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_sibling(folder, "lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"another process is writing {folder} just now; wait for it, or name another folder"
        ) from None
    try:
        with _temporary(folder) as temporary:
            yield temporary
            _put_in_place(temporary, folder)
    finally:
        with suppress(OSError):  # Windows removes no open file
            Path(lock.lock_file).unlink()
        lock.release()


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    temporary, replaced = _sibling(folder, "writing"), _sibling(folder, "replaced")
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
    for leftover in (temporary, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, folder: Path) -> None:
    replaced = _sibling(folder, "replaced")
    if folder.exists():
        folder.rename(replaced)
    try:
        temporary.rename(folder)
    except BaseException:
        if replaced.exists():
            replaced.rename(folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _sibling(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}")
