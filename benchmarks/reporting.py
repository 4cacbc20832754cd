"""What the benchmarks share: the table that is printed, the JSON that is written, and processes of their own.

Importing this lets a script of this folder import the project's packages.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

Row = dict[str, str | int | float | None]
"""A line of a table, by column; all lines of a table have the same columns."""


def show(title: str, rows: Sequence[Row]) -> None:
    """Prints rows as a table: texts to the left, numbers to the right, nothing for None."""
    table = Table(title=title)
    for column, first in rows[0].items():
        unbroken = [*column.split(), *(_cell(row[column]) for row in rows)]  # headings may be wrapped between words
        width = max(map(len, unbroken))
        table.add_column(column, justify="left" if isinstance(first, str) else "right", min_width=width)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console().print(table, crop=False)


def environment(*packages: str) -> Row:
    """The machine, PyTorch with the number of its threads in this process, and versions of further packages."""
    import torch

    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: metadata.version(name) for name in packages},
        **({"cuda": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
    }


def save(path: Path, rows: Sequence[Row], machine: Row, **settings: Any) -> None:
    """Writes rows as JSON, with the command, the `environment` and the settings that they were measured in."""
    command = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_folders, sys.argv[1:])]
    result = {"command": shlex.join(command), "environment": machine, **settings, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


def in_fresh_process(arguments: Sequence[str], **variables: str) -> Any:
    """Runs this script again, with other arguments and further environment variables; returns the JSON it prints."""
    command = [sys.executable, sys.argv[0], *arguments]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | variables).stdout
    return json.loads(printed)


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str | bool) else f"{value:,}"


def _without_folders(argument: str) -> str:
    """An argument of the command line; of an absolute path, which is this machine's affair, the name alone."""
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    return option + equals + (Path(value).name if Path(value).is_absolute() else value)
