"""Seconds of a comparison in which everything is done, against what `fit --help` takes.

    python benchmarks/compare_overhead.py --out benchmarks/results/compare_overhead.json

Run it from the root of the repository. The shipped quickstart plan is run once, with two updates for each training,
into a temporary folder. Then every repeat runs all commands in turn, each in a fresh process, so that a busy machine
slows them alike: the plan again, which finds everything done, its dry run, and the help. The time that counts is
processor time (user + system); wall time stands beside it. Figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from startup import ROOT, run_once

BASELINE = "main.py fit --help"
STEPS = {"trainer.max_steps": 2, "trainer.val_check_interval": 2}
RECIPES = {"strong": {"set": {"data.init_args.augmentation": "strong", **STEPS}}}


def plan_command(root: Path, seeds: int) -> list[str]:
    """The quickstart plan, made short."""
    plan = ["main.py", "compare", "--config", "configs/compare/quickstart.yaml", "--root", str(root)]
    return [*plan, "--recipes", json.dumps(RECIPES), "--seeds", json.dumps(list(range(seeds)))]


def run_plan(command: list[str], root: Path) -> int:
    """Runs all stages; returns their number."""
    subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return len(list((root / "done").iterdir()))


def measure(commands: dict[str, list[str]], repeats: int) -> list[dict[str, str | float]]:
    """One row per command: medians and the ratio to the help."""
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
            f"/ {BASELINE}": round(processor / medians[BASELINE][0], 2),
        }
        for name, (processor, wall) in medians.items()
    ]


def show(rows: list[dict[str, str | float]], stages: int) -> None:
    """Prints the table."""
    table = Table(title=f"A plan of {stages} stages, all of them done; medians")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "command" else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


def main() -> None:
    """Measures, prints a table and, with --out, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="of the plan; each adds 14 stages")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"SRDISTILL_CACHE": f"{folder}/cache", "WANDB_MODE": "disabled"}
        root = Path(folder) / "compare"
        command = plan_command(root, options.seeds)
        stages = run_plan(command, root)
        commands = {
            BASELINE: ["main.py", "fit", "--help"],
            "main.py compare": command,
            "main.py compare --dry_run": [*command, "--dry_run"],
        }
        rows = measure(commands, options.repeats)
    show(rows, stages)
    if options.out:
        versions = {name: metadata.version(name) for name in ("torch", "lightning", "jsonargparse")}
        machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        result = {"environment": {**versions, **machine}, "repeats": options.repeats, "stages": stages, "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
