"""Seconds until help is shown, against what importing Lightning takes.

    python benchmarks/startup.py --out benchmarks/results/startup.json

Run it from the root of the repository. Every repeat runs all commands in turn, each in a fresh process, so that a busy
machine slows them alike. The time that counts is processor time (user + system), which neighbours disturb least; wall
time stands beside it. Figures are medians.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from reporting import ROOT, Row, environment, save, show
from rich.progress import track

PACKAGES = ("lightning", "jsonargparse")
"""What starting takes time for, beside PyTorch."""

BASELINE = "import LightningCLI"
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import lightning": ["-c", "import lightning"],
    BASELINE: ["-c", "from lightning.pytorch.cli import LightningCLI"],
    "main.py fit --help": ["main.py", "fit", "--help"],
    "main.py --help": ["main.py", "--help"],
}


def run_once(arguments: list[str]) -> tuple[float, float]:
    """Processor and wall seconds of a fresh interpreter."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - start
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, wall


def measure(commands: Mapping[str, list[str]], baseline: str, repeats: int) -> list[Row]:
    """Measures commands in turn.

    Args:
        commands: arguments of the interpreter, by the name that the table shows.
        baseline: name of the command that all are divided by.
        repeats: of all commands.

    Returns:
        One row per command: medians and the ratio to the baseline.
    """
    for arguments in commands.values():
        run_once(arguments)  # fills the disk cache
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in track(range(repeats), description="repeats"):
        for name, arguments in commands.items():
            times[name].append(run_once(arguments))
    medians = {name: [statistics.median(kind) for kind in zip(*pairs, strict=True)] for name, pairs in times.items()}
    return [
        {
            "command": name,
            "processor, s": round(processor, 2),
            "wall, s": round(wall, 2),
            f"/ {baseline}": round(processor / medians[baseline][0], 2),
        }
        for name, (processor, wall) in medians.items()
    ]


def main() -> None:
    """Measures, prints a table and, with --out, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    rows = measure(COMMANDS, BASELINE, options.repeats)
    show("Start-up, medians", rows)
    if options.out:
        save(options.out, rows, environment(*PACKAGES), repeats=options.repeats)


if __name__ == "__main__":
    main()
