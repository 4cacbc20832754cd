"""What a run has written down."""

from __future__ import annotations

import csv
from pathlib import Path


def logged(run: Path, name: str) -> list[float]:
    """A column of a run's metrics.csv, where it has numbers."""
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
