"""Errors for people: one line for what the user can mend, the whole traceback for what only we can."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Ends the process with `error: ...` where a message was written for users; other exceptions pass.

    SRDISTILL_DEBUG=1 shows the traceback in any case.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)  # what shells report for Ctrl-C
    except Exception as error:
        message = message_for_users(error)
        if message is None or os.environ.get("SRDISTILL_DEBUG"):
            raise
        sys.exit(f"error: {message}")


def message_for_users(error: BaseException) -> str | None:
    """The message of an exception that a user can mend, or None.

    That is one that this framework raised on purpose, also where a library wrapped it (jsonargparse does so with what
    constructors raise); one of Lightning about the Trainer's flags; or one of the system that names a file.
    """
    wrapped: BaseException | None = error
    while wrapped is not None:
        if raised_by_us(wrapped) or type(wrapped).__name__ == "MisconfigurationException":
            return str(wrapped)
        wrapped = wrapped.__cause__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return None


def raised_by_us(error: BaseException) -> bool:
    """Whether a `raise` statement of this framework raised it, so that the message was written for users."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and is_ours(frames[-1].filename) and (frames[-1].line or "").startswith("raise ")


def is_ours(file: str) -> bool:
    """Whether a source file belongs to this framework, and not to an environment below its folder."""
    path = Path(file).resolve()
    return ROOT in path.parents and "site-packages" not in path.parts
