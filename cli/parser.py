"""The parser of the command line: errors in a line, and none of the usage that buries them."""

from __future__ import annotations

import sys
from os import PathLike
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser
from yaml import MarkedYAMLError

from cli.explain import explain


class FriendlyParser(LightningArgumentParser):
    """LightningArgumentParser whose errors name the file, the key and the closest valid one."""

    _reading: str | PathLike[str] | None = None

    def parse_path(self, path: str | PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Keeps the file's name for errors."""
        self._reading = path
        parsed = super().parse_path(path, *args, **kwargs)
        self._reading = None
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints what is wrong and exits with status 2."""
        if not self.exit_on_error:  # the options of one class; the parser of the whole command line reports
            super().error(message, ex)
        self.refuse(self._told(message, ex))

    def refuse(self, message: str) -> NoReturn:
        """What is done about an error, given in a line."""
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)

    def _told(self, message: str, ex: Exception | None) -> str:
        if ex is not None and isinstance(ex.__cause__, MarkedYAMLError):
            mark = ex.__cause__.problem_mark
            line = f", line {mark.line + 1}" if mark else ""
            return f"{self._reading}{line}: no valid YAML: {ex.__cause__.problem}"
        # What a command does not accept is found by the parser of all commands, which has no options itself.
        keys = getattr(ex, "subcommand_parser", self).get_defaults().keys()
        return f"{self._reading}: " * (self._reading is not None) + explain(message, keys)


class RaisingParser(FriendlyParser):
    """The same for a caller that goes on: errors are raised as ValueError."""

    def refuse(self, message: str) -> NoReturn:
        """Raises it."""
        self._reading = None
        raise ValueError(message)
