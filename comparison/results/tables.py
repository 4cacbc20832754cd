"""The record of a comparison on disk: every row as CSV and JSON, the main table as Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from comparison.results.formatting import (
    MINUS,
    MISSING,
    format_gain,
    format_percent,
    format_psnr,
    format_seconds,
    format_signed,
    format_ssim,
)
from comparison.results.rows import MEAN, Cell, ImageRow, Row
from comparison.results.statistics import Group, Summary
from comparison.results.untrained import wording
from datamodules.fingerprint import write_atomic

SCHEMA = 2
"""Version of `results.json`; grows when a column changes its meaning or goes."""

_ESCAPED = {sign: f"\\{sign}" for sign in "_%&#${}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    MINUS: "$-$",
    MISSING: "--",
}
"""What LaTeX reads as a command, or has no letter for in all its fonts."""


@dataclass(frozen=True)
class Table:
    """One network trained with one recipe, on data with or without a teacher's part.

    Attributes:
        title: what it is about.
        caption: what it is to be compared with.
        header: title of each column; the first is of words, the others are of figures.
        blocks: lines of cells; one block for each budget, the best line first.
    """

    title: str
    caption: str
    header: list[str]
    blocks: list[list[list[str]]]


def write_results(
    folder: Path, rows: Sequence[Row], per_image: Sequence[ImageRow], summaries: Sequence[Summary]
) -> None:
    """Writes `results.csv`, `per_image.csv`, `summary.csv` and `results.json` into `folder`.

    Each file has one line or object for each item, with the fields of its cell or group as the first columns. Figures
    have all their digits; what is not known is empty in CSV and null in JSON, and so is what is not finite in JSON.

    Args:
        folder: made when missing.
        rows: for `results.csv`.
        per_image: for `per_image.csv`, alone: there are too many for the JSON file.
        summaries: for `summary.csv`; their interval is in `gain_low` and `gain_high`.
    """
    write_atomic(folder / "results.csv", _csv(Row, rows))
    write_atomic(folder / "per_image.csv", _csv(ImageRow, per_image))
    write_atomic(folder / "summary.csv", _csv(Summary, summaries))
    content = {
        "schema": SCHEMA,
        "rows": [_finite(record) for record in records(Row, rows)],
        "summary": [_finite(record) for record in records(Summary, summaries)],
    }
    write_atomic(folder / "results.json", json.dumps(content, indent=1, allow_nan=False) + "\n")


def _csv(kind: type, items: Sequence[Row | ImageRow | Summary]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(kind), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records(kind, items))
    return text.getvalue()


def _columns(kind: type) -> list[str]:
    """Those of the cell or group first; a total after its parts, an interval as its two ends."""
    key, *names = (field.name for field in fields(kind))
    more = {"training_seconds": ["training_seconds", "total_seconds"], "gain_interval": ["gain_low", "gain_high"]}
    first = Group._fields if key == "group" else Cell._fields
    return [*first, *(column for name in names for column in more.get(name, [name]))]


def records(kind: type, items: Sequence[Row | ImageRow | Summary]) -> Iterable[dict[str, Any]]:
    """Rows, images or summaries as flat mappings, the fields of their cell or group first."""
    columns = _columns(kind)
    for item in items:
        key = item.group if isinstance(item, Summary) else item.cell
        values = {**vars(item), **key._asdict()}
        if isinstance(item, Summary):
            values["gain_low"], values["gain_high"] = item.gain_interval or (None, None)
        if not isinstance(item, ImageRow):
            values["total_seconds"] = item.total_seconds
        yield {column: values[column] for column in columns}


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON knows neither NaN nor infinity, and browsers refuse a file that holds them."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }


def write_tables(folder: Path, summaries: Sequence[Summary], reference: str = "full", baseline: str = "random") -> None:
    """Writes the main table as `table.md` and `table.tex` into `folder`; arguments as for `markdown_table`."""
    write_atomic(folder / "table.md", markdown_table(summaries, reference, baseline))
    write_atomic(folder / "table.tex", latex_table(summaries, reference, baseline))


def markdown_table(summaries: Sequence[Summary], reference: str = "full", baseline: str = "random") -> str:
    """One table with a heading for each network, recipe and use of a teacher; those with a teacher come last.

    Args:
        summaries: lines of every set; a table has one line for each regime and budget.
        reference: regime that gaps are to, as given to `summarise`.
        baseline: regime that gains are over, as given to `summarise`.
    """
    tables = [_markdown(table) for table in _tables(summaries, reference, baseline)]
    return "\n".join([f"{_note(summaries, reference, baseline)}\n", *tables])


def latex_table(summaries: Sequence[Summary], reference: str = "full", baseline: str = "random") -> str:
    r"""The tables of `markdown_table` as `table*` floats; they need `\usepackage{booktabs}` and nothing else."""
    note = _note(summaries, reference, baseline)
    return "\n".join(_latex(table, note) for table in _tables(summaries, reference, baseline))


def _markdown(table: Table) -> str:
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    lines = [table.header, rule, *(line for block in table.blocks for line in block)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {table.title}\n\n{table.caption}\n\n{body}\n"


def _latex(table: Table, note: str) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(_escape(cell) for cell in cells) + r" \\"

    blocks = ["\n".join(map(line, block)) for block in table.blocks]
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{_escape(f'{table.title}. {table.caption} {note}')}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            line(table.header),
            r"\midrule",
            "\n\\midrule\n".join(blocks),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _escape(text: str) -> str:
    return "".join(_ESCAPED.get(sign, sign) for sign in text)


Line = dict[str, Summary]
"""One line of the main table, by test set; without `MEAN` where no seed has been tested on all of them."""


def _tables(summaries: Sequence[Summary], reference: str, baseline: str) -> list[Table]:
    tables: dict[tuple[bool, str, str], dict[Group, Line]] = {}
    for summary in summaries:
        group = summary.group
        lines = tables.setdefault((group.teacher, group.network, group.recipe), {})
        lines.setdefault(group._replace(set=""), {})[group.set] = summary
    by_teacher = sorted(tables.values(), key=lambda lines: next(iter(lines)).teacher)
    return [_table(next(iter(lines)), list(lines.values()), reference, baseline) for lines in by_teacher]


def _table(group: Group, lines: Sequence[Line], reference: str, baseline: str) -> Table:
    sets = list(dict.fromkeys(name for line in lines for name in line if name != MEAN))
    shown = [*sets, MEAN] if len(sets) > 1 else sets
    return Table(
        title=f"{group.network}, {group.recipe}"
        + (", targets from a trained network (teacher)" if group.teacher else ""),
        caption=_caption(group.teacher, lines, shown),
        header=[
            *("Regime", "Data", "Images", *(f"PSNR-Y {name}" for name in shown), "SSIM-Y"),
            *(f"Gap to {reference}", f"Gain over {baseline}", "Kept", "Distillation", "Training", "Seeds"),
        ],
        blocks=[
            [_cells(line, shown) for line in block]
            for _, block in groupby(sorted(lines, key=_rank), key=lambda line: _rank(line)[0])
        ],
    )


def _caption(teacher: bool, lines: Sequence[Line], shown: Sequence[str]) -> str:
    tested = {name: line[name] for line in lines for name in line}
    figures = ", ".join(f"{format_psnr(tested[name].psnr_y_untrained)} dB ({name})" for name in shown if name in tested)
    part = "A teacher had a part in these data: not to be ranked with data without one. " if teacher else ""
    return f"{part}{wording([*tested.values()]).opening}: {figures}."


def _note(summaries: Sequence[Summary], reference: str, baseline: str) -> str:
    return (
        "PSNR-Y in dB, mean ± sample standard deviation over seeds; data in percent of the full set's pixels; images "
        f"are patches or photographs; gap to {reference} without a teacher; gain over {baseline} at the same budget, "
        "in brackets the 95 % interval of a bootstrap over test images; kept is the share of what full data gain over "
        f"{wording(summaries).phrase}."
    )


def _rank(line: Line) -> tuple[float, float]:
    """Small budgets first, the full set last; the best first, and last what has no mean."""
    budget = next(iter(line.values())).group.budget
    return math.inf if budget is None else budget, -line[MEAN].psnr_y if MEAN in line else math.inf


def _cells(line: Line, shown: Sequence[str]) -> list[str]:
    data = line.get(MEAN, next(iter(line.values())))
    psnr = [format_psnr(line[name].psnr_y, line[name].psnr_y_std) if name in line else MISSING for name in shown]
    return [
        *(data.group.regime, format_percent(data.percent), f"{data.images:,.0f}", *psnr),
        *(_derived(line[MEAN]) if MEAN in line else [MISSING] * 4),
        *(format_seconds(data.distillation_seconds), format_seconds(data.training_seconds), str(data.seeds)),
    ]


def _derived(mean: Summary) -> list[str]:
    return [
        format_ssim(mean.ssim_y),
        format_signed(mean.gap_to_full),
        format_gain(mean.gain_over_random, mean.gain_interval),
        MISSING if mean.kept is None else format_percent(100 * mean.kept),
    ]
