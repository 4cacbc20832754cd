"""What the run folder of a resumed fit takes over from the attempts before it."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

from comparison.planning.stages import LAST
from datamodules.fingerprint import write_atomic

METRICS = "metrics.csv"


def complete(folder: Path, earlier: Sequence[Path]) -> None:
    """Makes a run folder that of the whole training.

    `metrics.csv` gets what was logged before the resume. A fit that was interrupted after its last step, in the last
    validation or later, had nothing left to train: it lacks the checkpoint and the record of its start.

    Args:
        folder: of the resumed run, which has ended well.
        earlier: run folders of the attempts before it, the last one last.
    """
    logs = [path / METRICS for path in [*earlier, folder] if (path / METRICS).is_file()]
    if logs:
        write_atomic(folder / METRICS, _joined(logs))
    for name in (LAST, "provenance.json"):
        written = [path / name for path in earlier if (path / name).is_file()]
        if written and not (folder / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy2(written[-1], folder / name)


def _joined(logs: Sequence[Path]) -> str:
    """Of what was done twice, the steps between a checkpoint and the interruption, the later lines."""
    lines: list[dict[str, str]] = []
    for log in logs:
        with log.open(encoding="utf-8", newline="") as file:
            new = list(csv.DictReader(file))
        first = int(new[0]["step"]) if new else None
        lines = [line for line in lines if first is None or int(line["step"]) < first] + new
    columns = dict.fromkeys(column for line in lines for column in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
