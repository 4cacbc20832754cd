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
import subprocess
import sys
import tempfile
from pathlib import Path

from reporting import ROOT, environment, save, show
from startup import PACKAGES, measure

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
        rows = measure(commands, BASELINE, options.repeats)
    show(f"A plan of {stages} stages, all of them done; medians", rows)
    if options.out:
        save(options.out, rows, environment(*PACKAGES), repeats=options.repeats, stages=stages)


if __name__ == "__main__":
    main()
