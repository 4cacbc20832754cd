"""Errors for people: one line for what the user can mend, the whole traceback for what only we can."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = (ValueError, OSError, RuntimeError)


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Ends the process with `error: ...` when our own code refused something; other exceptions pass.

    SRDISTILL_DEBUG=1 shows the traceback in any case.
    """
    try:
        yield
    except EXPECTED as error:
        if os.environ.get("SRDISTILL_DEBUG") or not raised_by_us(error):
            raise
        sys.exit(f"error: {error}")


def raised_by_us(error: BaseException) -> bool:
    """Whether the `raise` stands in this framework, so that the message was written for users."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and ROOT in Path(frames[-1].filename).resolve().parents and ".venv" not in frames[-1].filename
