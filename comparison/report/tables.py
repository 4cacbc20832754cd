"""The main table, one for data without a teacher and one for data with: the two are never ranked together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from comparison.report.columns import Column, percent
from comparison.results.formatting import format_psnr, format_ssim
from comparison.results.rows import MEAN
from comparison.results.statistics import Group, Summary

PREFERRED_RECIPE = "strong"


class Choice(NamedTuple):
    """One filter above the tables.

    Attributes:
        key: field of `Group` and class of the column.
        title: in front of the filter.
        options: in the order of the lines.
        selected: shown first.
    """

    key: str
    title: str
    options: list[str]
    selected: str


class Cell(NamedTuple):
    """One figure or name.

    Attributes:
        column: that it stands in.
        text: that is read.
        value: that is sorted by; empty sorts last.
    """

    column: Column
    text: str
    value: str


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        group: what it is about.
        cells: one for each column.
        best: whether it has the highest PSNR of all regimes at its budget, and there are others.
        unsure: whether the interval of its gain holds 0.
    """

    group: Group
    cells: list[Cell]
    best: bool
    unsure: bool


class Untrained(NamedTuple):
    """The line at the foot of a table: no network at all.

    Attributes:
        set: test set.
        psnr: in dB, as text.
        ssim: as text.
    """

    set: str
    psnr: str
    ssim: str


@dataclass(frozen=True)
class Table:
    """One of the two tables.

    Attributes:
        teacher: whether a trained network had a part in the data.
        lines: budgets ascending, the full set last, at each budget the best on top.
        untrained: one line for each test set.
    """

    teacher: bool
    lines: list[Line]
    untrained: list[Untrained]


def choices(summaries: Sequence[Summary]) -> list[Choice]:
    """The filters; at first the first network, the recipe `strong` and the mean over test sets where there are such."""
    if not summaries:
        return []
    found = {key: _distinct(getattr(line.group, key) for line in summaries) for key in ("network", "recipe", "set")}
    return [
        Choice("network", "Network", found["network"], found["network"][0]),
        Choice("recipe", "Recipe", found["recipe"], _prefer(PREFERRED_RECIPE, found["recipe"])),
        Choice("set", "Test set", found["set"], _prefer(MEAN, found["set"])),
    ]


def tables(summaries: Sequence[Summary], columns: Sequence[Column]) -> list[Table]:
    """The table without a teacher, then the one with, each where it has lines."""
    halves = [[line for line in summaries if line.group.teacher is teacher] for teacher in (False, True)]
    return [
        Table(teacher, _lines(half, columns), _untrained(half))
        for teacher, half in zip((False, True), halves, strict=True)
        if half
    ]


def _lines(summaries: Sequence[Summary], columns: Sequence[Column]) -> list[Line]:
    best = {line.group for line in _best(summaries)}
    ordered = sorted(summaries, key=lambda line: (percent(line.group), -line.psnr_y))
    return [Line(line.group, _cells(line, columns), line.group in best, _unsure(line)) for line in ordered]


def _best(summaries: Sequence[Summary]) -> list[Summary]:
    rivals: dict[Group, list[Summary]] = {}
    for line in summaries:
        if line.group.budget is not None:
            rivals.setdefault(line.group._replace(regime=""), []).append(line)
    return [max(lines, key=lambda line: line.psnr_y) for lines in rivals.values() if len(lines) > 1]


def _unsure(line: Summary) -> bool:
    return line.gain_interval is not None and line.gain_interval[0] <= 0 <= line.gain_interval[1]


def _cells(line: Summary, columns: Sequence[Column]) -> list[Cell]:
    values = [column.value(line) for column in columns]
    return [
        Cell(column, column.text(line), "" if value is None else str(value))
        for column, value in zip(columns, values, strict=True)
    ]


def _untrained(summaries: Sequence[Summary]) -> list[Untrained]:
    """It depends on the test set only: any line of the set tells it."""
    by_set = {line.group.set: line for line in summaries}
    return [
        Untrained(name, format_psnr(line.psnr_y_untrained), format_ssim(line.ssim_y_untrained))
        for name, line in by_set.items()
    ]


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _prefer(name: str, names: Sequence[str]) -> str:
    return name if name in names else names[0]
