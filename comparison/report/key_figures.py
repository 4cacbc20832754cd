"""The few figures that stand above everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from comparison.report.tables import Choice
from comparison.results.formatting import format_gain, format_percent, format_psnr, format_seconds, format_signed
from comparison.results.statistics import Summary
from comparison.results.untrained import wording


class KeyFigure(NamedTuple):
    """One of them.

    Attributes:
        label: what it is.
        value: the figure.
        detail: what it is made of, in half a sentence.
    """

    label: str
    value: str
    detail: str


def key_figures(
    summaries: Sequence[Summary], choices: Sequence[Choice], reference: str, baseline: str
) -> list[KeyFigure]:
    """Full data, then the best regime at each budget, in the table's first view and without a teacher.

    Args:
        summaries: lines of all tables.
        choices: filters of the tables; what they select is the first view.
        reference: regime that gaps are counted from.
        baseline: regime that gains are counted from.
    """
    shown = [
        line
        for line in summaries
        if not line.group.teacher and all(getattr(line.group, choice.key) == choice.selected for choice in choices)
    ]
    full = [_of_reference(line) for line in shown if line.group.regime == reference]
    budgets = sorted({line.group.budget for line in shown if line.group.budget is not None})
    at_each = ([line for line in shown if line.group.budget == budget] for budget in budgets)
    return full + [_of_budget(max(lines, key=lambda line: line.psnr_y), baseline) for lines in at_each]


def _of_reference(line: Summary) -> KeyFigure:
    over = format_signed(line.psnr_y - line.psnr_y_untrained)
    return KeyFigure(
        f"{line.group.regime}: all data",
        f"{format_psnr(line.psnr_y)} dB",
        f"{over} dB over {wording([line]).short}, in {format_seconds(line.total_seconds)}",
    )


def _of_budget(line: Summary, baseline: str) -> KeyFigure:
    gain = f", {format_gain(line.gain_over_random, line.gain_interval)} dB over {baseline}"
    return KeyFigure(
        f"{line.group.regime} at {format_percent(line.group.budget)} of the pixels",
        f"{format_psnr(line.psnr_y)} dB" if line.kept is None else f"{format_percent(100 * line.kept)} kept",
        f"{format_psnr(line.psnr_y)} dB{'' if line.gain_over_random is None else gain}, "
        f"in {format_seconds(line.total_seconds)}",
    )
