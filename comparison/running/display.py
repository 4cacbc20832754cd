"""What users see while the stages of a comparison run: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from comparison.results.formatting import format_seconds

TAIL = 16 * 1024
"""Bytes of `metrics.csv` that progress is read from: some hundred lines."""


class Display:
    """Shows a run of stages; a context manager.

    A terminal gets one bar for all stages, with the time left, and below it one line for each running stage, whose bar
    only pulses while the stage's length is unknown. Failures are printed above and stay. Anything else (a log file,
    a CI job) gets one line when a stage begins and one when it ends.

    Args:
        total: number of stages, those that turn out to be done included.
        estimate: tells the seconds that all stages together still need, or None; asked in the caller's thread, whenever
            a stage begins or ends.
        console: to write to; null is standard error.
    """

    def __init__(self, total: int, estimate: Callable[[], float | None], console: Console | None = None) -> None:
        self._estimate = estimate
        self._console = console or Console(stderr=True)
        bar = BarColumn(bar_width=24)
        self._overall = Progress(TextColumn("stages"), bar, MofNCompleteColumn(), TimeElapsedColumn(), _TimeLeft())
        name = TextColumn("{task.description}", markup=False)
        self._running = Progress(SpinnerColumn(), name, bar, TaskProgressColumn(), TimeElapsedColumn())
        self._all = self._overall.add_task("stages", total=total, deadline=None)
        self._lines: dict[str, TaskID] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_interactive:
            self._live = Live(Group(self._overall, self._running), console=self._console)
            self._live.start()
        self._look_ahead()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, stage_name: str, resumed: bool) -> None:
        """A stage starts; `resumed` where it goes on from what an interrupted run has left."""
        label = f"{stage_name} (resumed)" if resumed else stage_name
        self._lines[stage_name] = self._running.add_task(label, total=None)
        self._log(f"{stage_name}: {'resumed' if resumed else 'started'}")
        self._look_ahead()

    def progress(self, stage_name: str, done: int, total: int) -> None:
        """A running stage has done so many of its steps; never called where their number is unknown."""
        self._running.update(self._lines[stage_name], completed=done, total=total)

    def end(self, stage_name: str, seconds: float) -> None:
        """A running stage is done."""
        self._close(stage_name)
        self._log(f"{stage_name}: done in {format_seconds(seconds)}")

    def failed(self, stage_name: str, log: Path, reason: str) -> None:
        """A running stage has failed."""
        self._close(stage_name)
        self._print(Text.assemble((f"{stage_name}: failed: {reason}", "red"), f" (log: {log})"))

    def skipped(self, count: int) -> None:
        """So many stages are not run: they were done before, or lack what a failed one should have written."""
        self._overall.advance(self._all, count)
        self._look_ahead()

    def _close(self, stage_name: str) -> None:
        self._running.remove_task(self._lines.pop(stage_name))
        self._overall.advance(self._all)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Notes when all will be done, which the bar counts down to."""
        seconds = self._estimate()
        self._overall.update(self._all, deadline=None if seconds is None else time.monotonic() + seconds)

    def _log(self, line: str) -> None:
        if self._live is None:
            self._print(Text(line))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


class _TimeLeft(ProgressColumn):
    """Time to the deadline, a moment of `time.monotonic`."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text()
        deadline = task.fields["deadline"]
        left = "unknown time" if deadline is None else format_seconds(max(0, deadline - time.monotonic()))
        return Text(f"{left} left", style="progress.remaining")


def read_progress(folder: Path, total: int | None) -> tuple[int, int] | None:
    """How far a running fit is, by its `metrics.csv`, which Lightning writes every `trainer.log_every_n_steps` steps.

    Args:
        folder: run folder of the fit.
        total: optimiser steps that it will do.

    Returns:
        Steps done and their number; None where that is unknown, or nothing has been written yet.
    """
    steps = _last_steps(folder / "metrics.csv")
    return None if total is None or not steps else (min(max(steps) + 1, total), total)


def _last_steps(path: Path) -> list[int]:
    """The `step` of the last whole lines; the file may be written, or made anew with more columns, at the same time."""
    try:
        with path.open("rb") as file:
            names = _cells(file.readline())
            if "step" not in names:
                return []
            first, size = file.tell(), file.seek(0, os.SEEK_END)
            file.seek(max(first, size - TAIL) - 1)  # on a newline, where a line starts behind it
            lines = file.read().split(b"\n")[1:-1]
    except OSError:  # not there yet
        return []
    steps = [cells[names.index("step")] for cells in map(_cells, lines) if len(cells) == len(names)]
    return [int(step) for step in steps if step.isdecimal()]


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8", "replace")]))
    except csv.Error:
        return []
