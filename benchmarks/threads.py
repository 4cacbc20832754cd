"""Training step of edsr_tiny with OpenMP threads that spin or sleep while they wait, with and without a busy neighbour.

    python benchmarks/threads.py --out benchmarks/results/threads.json

Run it from the root of the repository. `main.py` sets OMP_WAIT_POLICY=PASSIVE unless the environment says otherwise:
spinning is faster on a machine of one's own (set ACTIVE there), and collapses as soon as somebody else wants a core.
Each case is a fresh process with all cores as threads; the neighbour is a process that keeps one core busy.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from reporting import Row, environment, in_fresh_process, save, show

WARM_UP = 5
STEPS = 60


def milliseconds_per_step() -> float:
    """Mean time of a training step of 16 patches of 64 pixels; the mean, because collapse comes in bursts."""
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
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        return in_fresh_process(["--child"], OMP_WAIT_POLICY=policy, OMP_NUM_THREADS=str(os.cpu_count()))
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
    rows: list[Row] = []
    for busy in (False, True):
        spinning, sleeping = (round(measure(policy, busy), 1) for policy in ("ACTIVE", "PASSIVE"))
        ratio = round(spinning / sleeping, 1)
        rows.append({"busy_neighbour": busy, "spinning_ms": spinning, "sleeping_ms": sleeping, "ratio": ratio})
    show("training step of edsr_tiny", rows)
    if options.out:
        save(options.out, rows, environment() | {"threads": os.cpu_count()})


if __name__ == "__main__":
    main()
