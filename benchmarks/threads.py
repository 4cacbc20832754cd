"""Training step of edsr_tiny with OpenMP threads that spin or sleep while they wait, with and without a busy neighbour.

    python benchmarks/threads.py --out benchmarks/results/threads.json

Run it from the root of the repository. `main.py` sets OMP_WAIT_POLICY=PASSIVE unless the environment says otherwise:
spinning is faster on a machine of one's own (set ACTIVE there), and collapses as soon as somebody else wants a core.
Each case is a fresh process with all cores as threads; the neighbour is a process that keeps one core busy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 5
STEPS = 60


def milliseconds_per_step() -> float:
    """Mean time of a training step of 16 patches of 64 pixels; the mean, because collapse comes in bursts."""
    sys.path.insert(0, str(ROOT))
    import torch

    from lightning_modules.networks import EDSR

    network = EDSR(scale=4, n_feats=32, n_resblocks=4, direct_shuffle=True, bicubic_skip=True)
    lr, hr = torch.rand(16, 3, 16, 16), torch.rand(16, 3, 64, 64)
    optimizer = torch.optim.Adam(network.parameters())
    start = 0.0
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            start = time.perf_counter()
        optimizer.zero_grad()
        (network(lr) - hr).abs().mean().backward()
        optimizer.step()
    return 1e3 * (time.perf_counter() - start) / STEPS


def measure(policy: str, busy: bool) -> float:
    """`milliseconds_per_step` in a process of its own."""
    environment = {**os.environ, "OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": str(os.cpu_count())}
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        command = [sys.executable, __file__, "--child"]
        return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    finally:
        if neighbour:
            neighbour.kill()


def main() -> None:
    """Measure, print a table and, with --out, write JSON."""
    parser = argparse.ArgumentParser(description="Spinning against sleeping OpenMP threads.")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(milliseconds_per_step())
        return
    table = Table("neighbour", "spinning [ms]", "sleeping [ms]", "ratio", title="training step of edsr_tiny")
    rows = []
    for busy in (False, True):
        spinning, sleeping = (round(measure(policy, busy), 1) for policy in ("ACTIVE", "PASSIVE"))
        rows.append({"busy_neighbour": busy, "spinning_ms": spinning, "sleeping_ms": sleeping})
        table.add_row("busy" if busy else "none", str(spinning), str(sleeping), f"{spinning / sleeping:.1f}")
    Console().print(table)
    if options.out:
        options.out.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
