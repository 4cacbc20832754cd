"""Small multiples: a panel for each network, recipe and use of a teacher, which are never mixed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from comparison.plots.style import WIDTH, Palette
from comparison.results.rows import MEAN, Cell
from comparison.results.statistics import Group, Summary

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 3

_FRAME = 0.9  # inches of a figure's height for its legend and the label of the x axis
_LETTER = 0.078  # inches that a letter of a legend takes, and not less
_HANDLE = 0.55  # likewise the line and marker before it, with the gap to the next column


class Panel(NamedTuple):
    """What all curves of a panel have in common.

    Attributes:
        network: that was trained.
        recipe: of the training; empty where the panel is about all recipes.
        teacher: whether a trained network had a part in the data.
    """

    network: str
    recipe: str
    teacher: bool


def panel_of(key: Group | Cell) -> Panel:
    """The panel that a line of the table, or a training, belongs to."""
    return Panel(key.network, key.recipe, key.teacher)


def overall(summaries: Iterable[Summary]) -> list[Summary]:
    """The lines about the mean over the test sets, without those of a training that went to pieces (NaN)."""
    return [line for line in summaries if line.group.set == MEAN and math.isfinite(line.psnr_y)]


def is_reference(group: Group | Cell, reference: str) -> bool:
    """Whether it is the full data, without a teacher, that all others of its network and recipe are measured by."""
    return group.regime == reference and group.budget is None and not group.teacher


def by_panel(summaries: Iterable[Summary], reference: str) -> dict[Panel, list[Summary]]:
    """The lines of each panel without the reference, which belongs in all panels of its network and recipe."""
    panels: dict[Panel, list[Summary]] = {}
    for summary in summaries:
        if not is_reference(summary.group, reference):
            panels.setdefault(panel_of(summary.group), []).append(summary)
    return panels


def full_data(summaries: Iterable[Summary], panel: Panel, reference: str) -> list[Summary]:
    """Full data with a panel's network and recipe, never with a teacher: one line, or none."""
    wanted = panel._replace(teacher=False)
    return [each for each in summaries if is_reference(each.group, reference) and panel_of(each.group) == wanted]


def common_budget(keys: Iterable[Group | Cell]) -> float | None:
    """The smallest of the budgets that most lines have: of all lines, where the plan was carried out in full."""
    lines: dict[float, int] = {}
    for key in keys:
        if key.budget is not None:
            lines[key.budget] = lines.get(key.budget, 0) + 1
    return min(lines, key=lambda budget: (-lines[budget], budget), default=None)


def arrange(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Rows of panels: a network begins a new row, unless no network has more than one panel."""
    networks: dict[str, list[Panel]] = {}
    for panel in panels:
        networks.setdefault(panel.network, []).append(panel)
    groups = [sorted(group, key=lambda panel: panel.teacher) for group in networks.values()]
    if all(len(group) == 1 for group in groups):
        groups = [list(panels)]
    columns = _columns(max(len(group) for group in groups))
    return [group[first : first + columns] for group in groups for first in range(0, len(group), columns)]


def _columns(panels: int) -> int:
    return 2 if panels == 4 else min(panels, MOST_COLUMNS)


def small_multiples(
    panels: Sequence[Panel], height: float = 2.2, share: bool = True
) -> tuple[Figure, dict[Panel, Axes]]:
    """A figure with a titled panel for each; panels of a row that are about one network share the labels of y.

    Args:
        panels: at least one.
        height: of a row, in inches; a panel that has the width for itself gets half as much again.
        share: whether y is the same for all panels of a network.
    """
    from matplotlib.figure import Figure

    rows = arrange(panels)
    columns = max(len(row) for row in rows)
    each = height * 1.5 if columns == 1 and share else height
    figure = Figure(figsize=(WIDTH, each * len(rows) + _FRAME), layout="constrained")
    grid = figure.add_gridspec(len(rows), columns)
    titles = _titles(panels, WIDTH / columns)
    axes: dict[Panel, Axes] = {}
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            axes[panel] = figure.add_subplot(grid[number, column])
            axes[panel].set_title(titles[panel])
            if share and column and row[column - 1].network == panel.network:
                axes[panel].tick_params(labelleft=False)
    return figure, axes


def _titles(panels: Sequence[Panel], width: float) -> dict[Panel, str]:
    """Network, and what else sets a panel apart: below it where a line has no room for both."""
    several = len({panel.recipe for panel in panels}) > 1
    titles = {
        panel: [panel.network, *([panel.recipe] if several else []), *(["with teacher"] if panel.teacher else [])]
        for panel in panels
    }
    longest = max(len(", ".join(words)) for words in titles.values())
    between = ", " if longest * _LETTER < width - _HANDLE else "\n"
    return {panel: between.join([words[0], ", ".join(words[1:])][: len(words)]) for panel, words in titles.items()}


def label_left(axes: Mapping[Panel, Axes], label: str) -> None:
    """Labels the y axis of the leftmost panels."""
    for each in axes.values():
        spec = each.get_subplotspec()
        if spec is not None and spec.is_first_col():
            each.set_ylabel(label)


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """One legend above all panels, in as many columns as have room."""
    if handles:
        longest = max(len(str(handle.get_label())) for handle in handles)
        columns = max(1, min(len(handles), int(WIDTH / (_HANDLE + _LETTER * longest))))
        figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def regime_handles(palette: Palette, regimes: Iterable[str], marker: bool = True) -> list[Artist]:
    """Legend entries, in the order of all plots."""
    from matplotlib.lines import Line2D

    names = palette.sort(regimes)
    looks = [palette[name] for name in names]
    return [
        Line2D([], [], color=look.colour, ls=look.dashes, marker=look.marker if marker else "", label=name)
        for name, look in zip(names, looks, strict=True)
    ]
