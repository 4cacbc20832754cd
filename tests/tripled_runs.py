"""TripleD runs that take a second: the shipped configurations with tiny options."""

from __future__ import annotations

from typing import Any

from tests.diffusion_runs import MODEL, run

KEPT = 5
EDITOR = "{channels: 4, depth: 2}"


def few() -> list[str]:
    """Five patches; no pictures."""
    quiet = ["--selection_sheet.patches", "0", "--sample_grid.per_class", "0", "--image_grid.images", "0"]
    return ["--data.init_args.budget", f"{{patches: {KEPT}, percent: null}}", *quiet]


def align(*args: str) -> Any:
    """Trains an editor of two layers."""
    return run("fit", "distill/tripled/align.yaml", f"{MODEL}editor", EDITOR, *few(), *args)


def edit(*args: str) -> Any:
    """Writes a set."""
    return run("predict", "distill/tripled/edit.yaml", *few(), *args)
