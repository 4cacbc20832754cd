"""Where stages write, and the record of what is done."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comparison.planning.stages import LAST, Stage
from datamodules.fingerprint import write_atomic

FOLDERS = STAGES, SETS, DONE, LOGS, LOCKS, MEMO = "stages", "sets", "done", "logs", "locks", "memo"
"""Of all plans that share a store, among which each plan has its own."""

SHORT = 12
"""Digits of a key in the names of folders."""


@dataclass(frozen=True)
class Done:
    """A finished stage.

    Attributes:
        stage: its name.
        key: what was done on what, see `comparison.planning.keys`.
        kind: see `Stage`.
        command: the words of the command line, after `python main.py`.
        run: its run folder, relative to the store's root.
        output: what later stages read: the run folder, or the distilled set.
        seconds: from start to end, with start-up or, where an earlier attempt took longer, with that.
        signature: stages with the same one take about the same time.
    """

    stage: str
    key: str
    kind: str
    command: list[str]
    run: str
    output: str
    seconds: float
    signature: str


class Store:
    """Finished stages of all plans that share a folder, each known by its key.

    Holds `stages/NAME/COMMAND/KEY` (run folders), `sets/NAME-KEY` (distilled sets), `done/KEY.json`, `logs/NAME.log`,
    `locks/KEY.lock`, and `memo` (what later calls need not find out again).

    Args:
        root: the folder; made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / STAGES
        self.memo = root / MEMO

    def done(self, key: str) -> Done | None:
        """The record of a finished stage whose output is still there."""
        try:
            record = Done(**json.loads((self.root / DONE / f"{key}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return record if (self.root / record.output).is_dir() else None

    def finish(self, record: Done) -> None:
        """Records that a stage is done."""
        write_atomic(self.root / DONE / f"{record.key}.json", json.dumps(asdict(record), indent=2) + "\n")

    def history(self) -> list[Done]:
        """All that was ever done here."""
        keys = (path.stem for path in sorted((self.root / DONE).glob("*.json")))
        return [record for key in keys if (record := self.done(key)) is not None]

    def log(self, stage: str) -> Path:
        """What a stage prints, all attempts one after the other."""
        return self.root / LOGS / f"{stage}.log"

    def lock(self, key: str) -> Path:
        """Held by the process that runs the stage."""
        return self.root / LOCKS / f"{key}.lock"

    def set_folder(self, stage: Stage, key: str) -> Path:
        """Where `predict` writes its distilled set."""
        return self.root / SETS / f"{stage.name}-{key[:SHORT]}"

    def attempts(self, stage: Stage, key: str) -> list[Path]:
        """Run folders of a stage's attempts, the last one last."""
        folder = self.runs / stage.name / stage.command
        return sorted(folder.glob(f"{key[:SHORT]}*"), key=lambda path: (len(path.name), path.name))

    def next_attempt(self, stage: Stage, key: str) -> Path:
        """Run folder that the next attempt will make."""
        attempts = self.attempts(stage, key)
        last = int(attempts[-1].name.partition("-")[2] or 0) if attempts else -1
        return self.runs / stage.name / stage.command / (key[:SHORT] + (f"-{last + 1}" if attempts else ""))

    def checkpoint(self, stage: Stage, key: str) -> Path | None:
        """The newest checkpoint of an interrupted fit."""
        written = [path / LAST for path in self.attempts(stage, key) if (path / LAST).is_file()]
        return max(written, key=os.path.getmtime) if written else None

    def relative(self, path: Path) -> str:
        """A path below the root, as records hold it."""
        return path.absolute().relative_to(self.root.absolute()).as_posix()


def read_json(path: Path) -> dict[str, Any]:
    """The content of a record; empty where it is missing or damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
